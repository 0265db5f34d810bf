// Package meter reads control groups and network namespaces for all who ask at about the same time. A
// reading is given to everybody for MaxAge, and a caller that asks while one is made waits for it, so that
// the calls of one scrape (statistics, metrics) go over the groups once.
package meter

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/stats/netdev"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
)

// MaxAge is how old a reading may be that is given to one more caller.
const MaxAge = 200 * time.Millisecond

const (
	// maxUnused is after how much time without a reading the files of a group are closed.
	maxUnused = time.Minute

	// minWindow and maxWindow bound the time over which the rate of a group's processor time is computed,
	// unless nobody asks for longer.
	minWindow = time.Second
	maxWindow = 10 * time.Second

	// maxKept is how many groups have files open between readings.
	maxKept = 300
)

// Cgroups makes readers of control groups.
type Cgroups interface {
	Reader(group string, keep bool) *usage.Reader
}

// Sample is a reading of a group, and how much processor time it used per second of late, in nanoseconds; nil
// until there is an earlier reading to compare with.
type Sample struct {
	usage.Reading
	NanoCores *uint64
}

// Meter reads groups. It may be used by many goroutines.
type Meter struct {
	cgroups  Cgroups
	now      func() time.Time
	networks func(paths []string) []netdev.Result
	maxKept  int

	// mu guards what follows.
	mu       sync.Mutex
	groups   map[string]*group
	kept     int
	sweeping bool

	// linkMu guards links, and is held while network namespaces are read. mu may be taken while it is held.
	linkMu sync.Mutex
	links  map[string]link
}

// New returns a Meter. It starts nothing.
func New(cgroups Cgroups) *Meter {
	return &Meter{
		cgroups:  cgroups,
		now:      time.Now,
		networks: netdev.Read,
		maxKept:  affordable(),
		groups:   map[string]*group{},
		links:    map[string]link{},
	}
}

// affordable is how many groups may have files open: a quarter of the process's descriptors at most.
func affordable() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur/4/uint64(usage.MaxOpen), maxKept))
}

// Group returns a reading of a group, of this detail or more; fs.ErrNotExist when the group is gone.
func (m *Meter) Group(name string, detail usage.Detail) (Sample, error) {
	g := m.group(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sample(m.now(), detail)
}

// Processes lists the processes of a group.
func (m *Meter) Processes(name string) (usage.Processes, error) {
	g := m.group(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.processes(m.now())
}

// Network returns the interfaces of the network namespace at a path, and when they were read.
func (m *Meter) Network(path string) ([]netdev.Interface, time.Time, error) {
	m.linkMu.Lock()
	defer m.linkMu.Unlock()
	m.readLinks([]string{path})

	l := m.links[path]
	return l.Interfaces, l.at, l.Err
}

// ReadNetworks reads the interfaces of several network namespaces at once, for the calls of Network that
// follow: that costs half of reading one after the other.
func (m *Meter) ReadNetworks(paths []string) {
	m.linkMu.Lock()
	defer m.linkMu.Unlock()
	m.readLinks(paths)
}

// readLinks reads those that are too old. linkMu is held, so that others wait for them.
func (m *Meter) readLinks(paths []string) {
	now := m.now()
	var old []string
	for _, path := range paths {
		if l, known := m.links[path]; !known || now.Sub(l.at) > MaxAge {
			old = append(old, path)
		}
	}

	if len(old) == 0 {
		return
	}

	for i, result := range m.networks(old) {
		m.links[old[i]] = link{Result: result, at: now}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweepLater()
}

// group returns the entry of a group.
func (m *Meter) group(name string) *group {
	m.mu.Lock()
	defer m.mu.Unlock()

	g := m.groups[name]
	if g == nil {
		keep := m.kept < m.maxKept
		if keep {
			m.kept++
		}

		g = &group{reader: m.cgroups.Reader(name, keep), keep: keep}
		m.groups[name] = g
		m.sweepLater()
	}

	g.used = m.now()
	return g
}

// sweepLater has what is not used any more forgotten. mu is held.
func (m *Meter) sweepLater() {
	if !m.sweeping {
		m.sweeping = true
		time.AfterFunc(maxUnused, m.sweep)
	}
}

// sweep forgets what nobody asked for of late, and closes its files. While nobody asks for anything, there is
// nothing to sweep, and no timer.
func (m *Meter) sweep() {
	m.linkMu.Lock()
	defer m.linkMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()

	m.sweeping = false
	oldest := m.now().Add(-maxUnused)
	for name, g := range m.groups {
		if g.used.After(oldest) {
			continue
		}

		delete(m.groups, name)
		if g.keep {
			m.kept--
		}
		go g.forget()
	}

	for path, l := range m.links {
		if !l.at.After(oldest) {
			delete(m.links, path)
		}
	}

	if len(m.groups)+len(m.links) > 0 {
		m.sweepLater()
	}
}
