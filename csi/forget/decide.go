package forget

import "time"

// MissingSince is the annotation of objects that says since when their node has been missing, as was first
// seen (RFC 3339).
const MissingSince = "csi.trivet.dev/node-missing-since"

// fate is what to do about an object of the driver.
type fate string

const (
	keep   fate = "keep"   // nothing
	mark   fate = "mark"   // note since when its node is missing
	unmark fate = "unmark" // the node is there again
	drop   fate = "drop"   // delete it
)

// leastWatch is for how long a process looks at most before it drops what was marked before it began: while
// nobody looked, the node may have been there.
const leastWatch = time.Hour

// decide says what to do about an object, by its annotations, whose node exists or does not, and that is
// dropped when the node has been missing for so long. Nodes have been looked at for watched. It is pure.
func decide(annotations map[string]string, exists bool, now time.Time, watched, after time.Duration) fate {
	text, marked := annotations[MissingSince]
	since, err := time.Parse(time.RFC3339, text)
	switch {
	case exists && marked:
		return unmark
	case exists:
		return keep
	case err != nil || since.After(now):
		// Not marked, or with a time that nobody can have seen.
		return mark
	case now.Sub(since) >= after && watched >= min(after, leastWatch):
		return drop
	}
	return keep
}
