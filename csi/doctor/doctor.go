// Package doctor says what is wrong on a node of the driver, and what a person should do about it: what the
// kernel and the disk do not allow, what differs between records, pool, mounts and the Kubernetes API, what
// was left behind, and what was promised and is not there. It is pure: it decides about a survey.
package doctor

import (
	"fmt"
	"slices"
	"time"

	"github.com/trivet-node/trivet/csi/survey"
)

// Level is how much a finding matters.
type Level string

// The levels. A node with a Wrong finding needs somebody.
const (
	OK    Level = "ok"
	Note  Level = "note"
	Wrong Level = "wrong"
)

// Finding is one thing that was found.
type Finding struct {
	Level  Level  `json:"level"`
	Object string `json:"object"`
	What   string `json:"what"`
	Do     string `json:"do,omitempty"` // what a person should do; "": nothing
}

// String returns the finding as one line.
func (f Finding) String() string {
	line := fmt.Sprintf("%-5s  %s: %s", f.Level, f.Object, f.What)
	if f.Do != "" {
		line += "; " + f.Do
	}
	return line
}

// Same reports whether two findings are the same one, at two times.
func (f Finding) Same(other Finding) bool {
	return f.Level == other.Level && f.Object == other.Object && f.Do == other.Do
}

// Lasting returns the findings of a later look without what is wrong in it alone: a driver was doing
// something then.
func Lasting(before, now []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(now), func(f Finding) bool {
		return f.Level == Wrong && !slices.ContainsFunc(before, f.Same)
	})
}

// IsWrong reports whether something is.
func IsWrong(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Wrong })
}

// Facts are all that the decision rests on.
type Facts struct {
	survey.Survey

	Driver   Driver
	Reserve  int64 // bytes of the disk that volumes never get
	PoolSize int64 // bytes that are promised at most; 0: as the disk allows

	// API is what the Kubernetes API has; nil if it was not asked, or could not be: then APIErr says why.
	API    *API
	APIErr error
}

// Driver is what was learnt of a driver that runs.
type Driver struct {
	Socket string
	Runs   bool
	Err    error // what is wrong with one that runs

	// CalledByOthers are methods that its own controllers call, and somebody else has called; "": none.
	CalledByOthers string
}

// grace is how long something may be under way before it counts as left behind.
const grace = time.Minute

// Findings returns what was found, the most general first.
func Findings(f Facts) []Finding {
	d := &diagnosis{Facts: f}
	d.kernel()
	d.driver()
	d.disk()
	d.pool()
	directories{d}.quotas()
	d.records()
	d.volumes()
	d.use()
	d.limits()
	d.leftBehind()
	d.objects()
	return d.found
}

// diagnosis collects findings.
type diagnosis struct {
	Facts
	found   []Finding
	groupOf map[string]string // the ID of a group snapshot, by those of its snapshots
}

func (d *diagnosis) ok(object, format string, args ...any) {
	d.add(OK, object, "", format, args)
}

func (d *diagnosis) note(object, do, format string, args ...any) {
	d.add(Note, object, do, format, args)
}

func (d *diagnosis) wrong(object, do, format string, args ...any) {
	d.add(Wrong, object, do, format, args)
}

func (d *diagnosis) add(level Level, object, do, format string, args []any) {
	d.found = append(d.found, Finding{
		Level:  level,
		Object: object,
		What:   fmt.Sprintf(format, args...),
		Do:     do,
	})
}
