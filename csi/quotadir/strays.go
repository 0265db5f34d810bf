package quotadir

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
)

// strays are files that were taken out of the project of their volume. Their owner may do that, unless he is
// in a user namespace, and they are charged to nobody then, or to another volume. So all files of volumes in
// use are looked at periodically, and put back. Who tries hides from that, see ADR 0952; what is put back is
// counted and reported. Volumes take turns: one that has millions of files, or is being changed all the time,
// does not keep the driver from looking at others.
type strays struct {
	dirs *Dirs

	// mu guards what follows.
	mu   sync.Mutex
	used map[string]bool // IDs of volumes that were in use since a look at them began

	// What follows is run's.
	looks map[string]*look
	ended map[string]time.Time // when the last look at a volume ended
	cut   map[string]int       // how many looks in a row were cut short by moves
}

func newStrays(d *Dirs) *strays {
	return &strays{
		dirs:  d,
		used:  map[string]bool{},
		looks: map[string]*look{},
		ended: map[string]time.Time{},
		cut:   map[string]int{},
	}
}

const (
	// lookPeriod is for how long a file can be outside, beside the time that a look takes.
	lookPeriod = time.Minute

	// A turn is a look at so many files, or for so long, and is followed by a pause that is some times as
	// long: all looks together take a part of a processor.
	turn      = 512
	turnTime  = 200 * time.Millisecond
	rest      = 4
	shortRest = 10 * time.Millisecond
	longRest  = 10 * time.Second

	// mostLooks bounds the descriptors that are held, and longestLook how long who changes his volume all
	// the time can hold some of them while others wait.
	mostLooks   = 64
	longestLook = time.Hour

	// mostCut is how many looks in a row may be cut short by moves before that is reported, and the next ones
	// come as late as any.
	mostCut = 3

	// idle is the pause while there is nothing to look at.
	idle = time.Second
)

// mayBeIn says that a volume is in use.
func (s *strays) mayBeIn(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[id] = true
}

func (s *strays) run(ctx context.Context) {
	defer func() {
		for _, l := range s.looks {
			l.close()
		}
	}()

	for ctx.Err() == nil {
		s.begin(time.Now())
		if len(s.looks) == 0 {
			_ = retry.Sleep(ctx, idle)
		}

		for id, l := range s.looks {
			began := time.Now()
			if l.goOn(began) || began.Sub(l.began) > longestLook && s.isFull() {
				s.end(id)
			}
			_ = retry.Sleep(ctx, min(max(rest*time.Since(began), shortRest), longRest))
		}
	}
}

// begin begins to look at volumes in use where that is due.
func (s *strays) begin(now time.Time) {
	maps.DeleteFunc(s.ended, func(_ string, at time.Time) bool { return now.Sub(at) > lookPeriod })

	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.used {
		_, early := s.ended[id]
		if s.looks[id] != nil || early || len(s.looks) >= mostLooks {
			continue
		}

		// What cannot be looked at now is looked at when it is used the next time.
		delete(s.used, id)
		if l, err := s.lookAt(id, now); err == nil {
			s.looks[id] = l
		}
	}
}

// isFull reports whether a volume waits for another one's look to end.
func (s *strays) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.looks) < mostLooks {
		return false
	}
	for id := range s.used {
		_, early := s.ended[id]
		if s.looks[id] == nil && !early {
			return true
		}
	}
	return false
}

// end ends a look, and reports what it has found. One that a move has cut short is followed by the next at
// once, but for a volume where that goes on.
func (s *strays) end(id string) {
	l := s.looks[id]
	l.close()
	delete(s.looks, id)

	if l.cut {
		s.cut[id]++
		s.mayBeIn(id)
	} else {
		delete(s.cut, id)
	}
	if !l.cut || s.cut[id] >= mostCut {
		s.ended[id] = time.Now()
	}
	if err := l.found(s.cut[id] == mostCut); err != nil {
		s.dirs.reports.tell(id, err)
	}
}

func (s *strays) lookAt(id string, now time.Time) (*look, error) {
	// Without quotas there is nothing to be outside of.
	if err := s.dirs.Check(false); err != nil {
		return nil, err
	}
	root, project, err := s.dirs.open(id)
	if err != nil {
		return nil, err
	}

	l := &look{began: now, root: root, project: project}
	var st unix.Stat_t
	err = unix.Fstat(int(root.Fd()), &st)
	if err == nil {
		err = l.walk.Enter(int(root.Fd()), id, &st)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}
