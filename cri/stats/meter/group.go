package meter

import (
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/stats/netdev"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
)

// group is what is known of one control group.
type group struct {
	keep bool

	// used is guarded by the Meter's mu.
	used time.Time

	// mu guards what follows, and is held while the group is read.
	mu     sync.Mutex
	reader *usage.Reader
	last   usage.Reading
	err    error
	readAt time.Time
	rate   rate

	listed   usage.Processes
	listErr  error
	listedAt time.Time

	// forgotten is true once the Meter does not know the group any more: nothing stays open.
	forgotten bool
}

// sample returns the last reading, or a new one if that is too old or has less detail than is asked for.
func (g *group) sample(now time.Time, detail usage.Detail) (Sample, error) {
	if now.Sub(g.readAt) > MaxAge || g.err == nil && g.last.Detail < detail {
		g.last, g.err = g.reader.Read(detail)
		g.readAt = now
		g.tidy()

		if g.err == nil {
			g.rate.add(g.last)
		}
	}
	return Sample{Reading: g.last, NanoCores: g.rate.nanoCores}, g.err
}

func (g *group) processes(now time.Time) (usage.Processes, error) {
	if now.Sub(g.listedAt) > MaxAge {
		g.listed, g.listErr = g.reader.Processes()
		g.listedAt = now
		g.tidy()
	}
	return g.listed, g.listErr
}

// forget closes the group's files, after a reading that is being made.
func (g *group) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgotten = true
	g.tidy()
}

// tidy leaves nothing open of a group that was forgotten while somebody was about to read it.
func (g *group) tidy() {
	if g.forgotten {
		g.reader.Close()
	}
}

// link is what was read of one network namespace.
type link struct {
	netdev.Result
	at time.Time
}

// rate is how much processor time a group uses, averaged over the time since an earlier reading.
type rate struct {
	since     time.Time
	used      time.Duration
	nanoCores *uint64
}

// add takes one more reading. A group that was made again starts from the beginning.
func (r *rate) add(reading usage.Reading) {
	window := reading.Time.Sub(r.since)
	spent := reading.CPU - r.used
	if r.since.IsZero() || spent < 0 {
		*r = rate{since: reading.Time, used: reading.CPU}
		return
	}

	if window >= minWindow {
		value := uint64(float64(spent) / window.Seconds())
		r.nanoCores = &value
	}
	if window >= maxWindow {
		r.since = reading.Time
		r.used = reading.CPU
	}
}
