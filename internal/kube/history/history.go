// Package history judges what a list-watch of the Kubernetes API brings by the resource versions that came
// before. What a list lacks is ended by those who watch, such as pods, and what a late event shows is begun
// again: so neither is believed at once. Resource versions compare since Kubernetes 1.35 (KEP-5504); those
// that do not are believed.
package history

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Restored is for how long a server has to give earlier versions than what is known until that is forgotten:
// its data were restored from a backup. Before, it may be a server that lags behind.
const Restored = time.Minute

// IsEarlier reports whether a version is earlier than another one.
func IsEarlier(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && order < 0
}

// History is what is known of a list-watch. The zero value knows nothing. It is not safe for concurrent use.
type History struct {
	// version is the newest that a list or the watch came with.
	version string

	// whole is the version of the last list that came in one piece, until it is judged.
	whole string
	lag   Lag
}

// Advance takes the version of an event. It reports whether the event is in order: a server sends events,
// bookmarks included, in the order of their versions. The same event twice is in order.
func (h *History) Advance(version string) bool {
	if IsEarlier(version, h.version) {
		return false
	}
	h.version = version
	return true
}

// Whole says that the list of this version, which is to be judged next, has come in one piece. One that comes
// as the first events of a watch may have lost some of them.
func (h *History) Whole(version string) { h.whole = version }

// Judge returns an error if a list does not count and has to be asked for again. missing is an object that is
// known and that the list lacks, if there is one. isRestored means that the list counts although it is
// earlier than what is known, none of which counts any more.
func (h *History) Judge(version, missing string, now time.Time) (isRestored bool, err error) {
	isWhole := version == h.whole
	h.whole = ""

	isEarlier := IsEarlier(version, h.version)
	switch {
	case h.lag.Behind(isEarlier, now):
		return false, fmt.Errorf("its version %s is earlier than %s, which is known", version, h.version)
	case missing != "" && !isWhole && !isEarlier:
		return false, fmt.Errorf("%s is missing, and its deletion was not seen", missing)
	}

	h.version = version
	return isEarlier, nil
}

// IsBehind reports whether the last list that was judged did not count because it was earlier.
func (h *History) IsBehind() bool { return !h.lag.since.IsZero() }

// Lag is how long a server has given earlier versions than what is known. The zero value is that of a server
// that has not.
type Lag struct{ since time.Time }

// Behind takes what the server gives now, an earlier version or not, and reports whether that does not count.
func (l *Lag) Behind(isEarlier bool, now time.Time) bool {
	if isEarlier && l.since.IsZero() {
		l.since = now
	}
	if isEarlier && now.Sub(l.since) < Restored {
		return true
	}
	l.since = time.Time{}
	return false
}
