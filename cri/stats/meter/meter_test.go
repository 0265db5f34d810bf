package meter

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cri/stats/netdev"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/cgroup/usage/usagetest"
)

// sample returns a sample of a group.
func sample(t *testing.T, m *Meter, detail usage.Detail) Sample {
	t.Helper()
	s, err := m.Group("/a", detail)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadingIsSharedForAMoment(t *testing.T) {
	host := usagetest.New(t, true)
	synctest.Test(t, func(t *testing.T) {
		m := New(host)
		first := sample(t, m, usage.Basic)

		time.Sleep(MaxAge)
		if again := sample(t, m, usage.Basic); !again.Time.Equal(first.Time) {
			t.Errorf("read after %v", again.Time.Sub(first.Time))
		}

		time.Sleep(time.Millisecond)
		if later := sample(t, m, usage.Basic); later.Time.Equal(first.Time) {
			t.Error("an old reading is given")
		}
	})
}

func TestReadingOfLessDetailIsNotGivenForOneOfMore(t *testing.T) {
	m := New(usagetest.New(t, true))
	if s := sample(t, m, usage.Basic); s.IO != nil {
		t.Errorf("devices %v", s.IO)
	}
	if s := sample(t, m, usage.Full); s.IO == nil {
		t.Error("no devices")
	}
	if s := sample(t, m, usage.Basic); s.IO == nil {
		t.Error("the reading of more detail is not given for one of less")
	}
}

func TestGroupThatIsGoneIsAnError(t *testing.T) {
	host := usagetest.New(t, true)
	host.Gone["/a"] = true
	m := New(host)
	for range 2 {
		if _, err := m.Group("/a", usage.Full); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
		if p, err := m.Processes("/a"); p.Count != 0 || err != nil {
			t.Errorf("processes %v, %v", p, err)
		}
	}
}

func TestRateIsThatOfTheTimeBetweenReadings(t *testing.T) {
	host := usagetest.New(t, true)
	synctest.Test(t, func(t *testing.T) {
		m := New(host)
		host.Write(t, "cpu.stat", "usage_usec 1000000\n")
		if s := sample(t, m, usage.Basic); s.NanoCores != nil {
			t.Errorf("a rate of one reading: %d", *s.NanoCores)
		}

		// Half a core, a quarter of one, and then the group is made again.
		for _, step := range []struct {
			used string
			rate uint64
		}{
			{"usage_usec 6000000\n", 500_000_000},
			{"usage_usec 8500000\n", 250_000_000},
		} {
			host.Write(t, "cpu.stat", step.used)
			time.Sleep(10 * time.Second)
			if s := sample(t, m, usage.Basic); s.NanoCores == nil || *s.NanoCores != step.rate {
				t.Errorf("%+v, want %d", s.NanoCores, step.rate)
			}
		}

		host.Write(t, "cpu.stat", "usage_usec 5\n")
		time.Sleep(time.Second)
		if s := sample(t, m, usage.Basic); s.NanoCores != nil {
			t.Errorf("a rate across two groups: %d", *s.NanoCores)
		}
	})
}

func TestNetworkIsReadOnceForAllWhoAskAtOnce(t *testing.T) {
	m := New(usagetest.New(t, true))
	m.now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	reads := map[string]int{}
	m.networks = func(paths []string) []netdev.Result {
		results := make([]netdev.Result, len(paths))
		for i, path := range paths {
			reads[path]++
			results[i].Interfaces = []netdev.Interface{{Name: path}}
		}
		return results
	}

	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			m.ReadNetworks([]string{"a", "b"})
			for _, path := range []string{"a", "b", "c"} {
				if got, _, err := m.Network(path); len(got) != 1 || got[0].Name != path || err != nil {
					t.Errorf("%s: %v, %v", path, got, err)
				}
			}
		})
	}

	all.Wait()
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1}, reads); diff != "" {
		t.Error(diff)
	}
}

// descriptors returns how many descriptors the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestNothingStaysOpenOfWhatNobodyAsksFor(t *testing.T) {
	host := usagetest.New(t, true)
	before := descriptors(t)
	synctest.Test(t, func(t *testing.T) {
		m := New(host)
		for range 3 {
			sample(t, m, usage.Full)
			time.Sleep(maxUnused / 2)
		}

		if descriptors(t) == before {
			t.Error("no file is kept open")
		}

		if _, _, err := m.Network("/gone"); err == nil {
			t.Error("a namespace that is not there has interfaces")
		}

		time.Sleep(3 * maxUnused)
		synctest.Wait()
		if got := descriptors(t); got != before || len(m.groups)+len(m.links)+m.kept > 0 {
			t.Errorf("%d descriptors, %d before; %d groups", got, before, len(m.groups))
		}
	})
}

func TestOpenFilesHaveABound(t *testing.T) {
	m := New(usagetest.New(t, true))
	m.maxKept = 2
	before := descriptors(t)
	for _, name := range []string{"/a", "/b", "/c", "/d"} {
		if _, err := m.Group(name, usage.Full); err != nil {
			t.Fatal(err)
		}
	}

	if got := descriptors(t); got > before+2*usage.MaxOpen {
		t.Errorf("%d descriptors, %d before", got, before)
	}
	for _, g := range m.groups {
		g.forget()
	}
}
