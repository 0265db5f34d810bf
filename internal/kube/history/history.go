// Package history judges what a list-watch of the Kubernetes API brings by the resource versions that came
// before. What a list lacks is ended by those who watch, such as pods, and what a late event shows is begun
// again: so neither is believed at once. Resource versions compare since Kubernetes 1.35 (KEP-5504); those
// that do not are believed.
package history

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Restored is for how long, at the least, a server has to give earlier versions than what is known until that
// is forgotten: its data were restored from a backup. Before, it may be a server that lags behind.
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

// Doubts reports whether what a list of this version lacks may still be there: a list that came in one piece
// has all, and one of before does not count, or counts whatever it lacks.
func (h *History) Doubts(version string) bool {
	return version != h.whole && !IsEarlier(version, h.version)
}

// ErrEarlier is wrapped by the errors of Judge for lists of an earlier version than what is known.
var ErrEarlier = errors.New("earlier than what is known")

// Judge returns an error if a list does not count and has to be asked for again. missing is an object that is
// known, that the list lacks, and that may still be there, if there is one. isRestored means that the list
// counts although it is earlier than what is known, none of which counts any more.
func (h *History) Judge(version, missing string, now time.Time) (isRestored bool, err error) {
	doubts := h.Doubts(version)
	h.whole = ""

	isEarlier := IsEarlier(version, h.version)
	switch {
	case h.lag.Behind(isEarlier, now):
		return false, fmt.Errorf("its version %s is %w, %s", version, ErrEarlier, h.version)
	case missing != "" && doubts:
		return false, fmt.Errorf("%s is missing, and its deletion was not seen", missing)
	}

	h.version = version
	return isEarlier, nil
}

// Lag is how long a server has given earlier versions than what is known. The zero value is that of a server
// that has not.
type Lag struct {
	// since and last are when it gave the first of them and the last one, and times how many there were.
	since, last time.Time
	times       int
}

// A server that was restored gives nothing but earlier versions, whenever it is asked; two that came by
// chance from a server that lags behind, hours apart, say nothing. So there must be witnesses of them, none
// longer than memory after the one before. Those who ask pause for up to a minute between.
const (
	witnesses = 4
	memory    = 2 * time.Minute
)

// Behind takes what the server gives now, an earlier version or not, and reports whether that does not count.
func (l *Lag) Behind(isEarlier bool, now time.Time) bool {
	if !isEarlier {
		*l = Lag{}
		return false
	}

	if now.Sub(l.last) > memory {
		*l = Lag{since: now}
	}
	l.last = now
	l.times++
	if l.times < witnesses || now.Sub(l.since) < Restored {
		return true
	}

	*l = Lag{}
	return false
}

// IsBehind reports whether the last version did not count.
func (l *Lag) IsBehind() bool { return l.times > 0 }
