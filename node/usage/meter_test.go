package usage

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnePassServesAllWhoAskWithinItsAge(t *testing.T) {
	rt := &fakeRuntime{}
	m := onV2(t, rt)
	synctest.Test(t, func(t *testing.T) {
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { take(t, m) })
		}

		group.Wait()
		if n := rt.asked.Load(); n != 1 {
			t.Errorf("100 at a time: the runtime was asked %d times", n)
		}

		// What is deep enough serves those who ask for less.
		time.Sleep(MaxAge - time.Millisecond)
		if _, err := m.Take(t.Context(), CPUAndMemory); err != nil {
			t.Error(err)
		}
		if n := rt.asked.Load(); n != 1 {
			t.Errorf("within the age: asked %d times", n)
		}

		time.Sleep(time.Millisecond)
		if _, err := m.Take(t.Context(), CPUAndMemory); err != nil {
			t.Error(err)
		}

		take(t, m)
		if n := rt.asked.Load(); n != 3 {
			t.Errorf("after it, first for less and then for all: asked %d times, want 3", n)
		}
	})
}

func TestPassGoesOnWhenTheOneWhoAskedFirstLeaves(t *testing.T) {
	rt := &fakeRuntime{}
	m := onV2(t, rt)
	synctest.Test(t, func(t *testing.T) {
		rt.block = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := m.Take(ctx, Everything)
			left <- err
		}()

		synctest.Wait()
		stays := make(chan *Snapshot)
		go func() { stays <- take(t, m) }()

		synctest.Wait()
		cancel()
		if err := <-left; err == nil {
			t.Error("no error for the one who has left")
		}

		close(rt.block)
		if s := <-stays; len(s.Pods) != 1 || rt.asked.Load() != 1 {
			t.Errorf("%d pods, asked %d times", len(s.Pods), rt.asked.Load())
		}
	})
}

func TestWithoutTheRuntimeThereIsTheMachine(t *testing.T) {
	rt := &fakeRuntime{}
	m := onV2(t, rt)
	rt.fails.Store(true)
	s, err := m.Take(t.Context(), CPUAndMemory)
	if err != nil || s.Err == nil || s.Node == nil || len(s.Pods) != 0 {
		t.Errorf("%+v, %v", s, err)
	}

	// It is asked again at once.
	rt.fails.Store(false)
	if s := take(t, m); len(s.Pods) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRateIsTheMeanSinceTheLastPassOrTheStart(t *testing.T) {
	var r rates
	at := func(after time.Duration, used time.Duration) uint64 {
		g := &Group{Path: "/x"}
		g.Time = born.Add(after)
		g.CPU = used
		s := &Snapshot{Pods: []Pod{{Created: born, Group: g}}}
		r.add(s)
		return g.NanoCores
	}

	for _, x := range []struct {
		what        string
		after, used time.Duration
		want        uint64
	}{
		{"the first: since the start", 10 * time.Second, 5 * time.Second, 5e8},
		{"half a CPU since", 14 * time.Second, 7 * time.Second, 5e8},
		{"too soon: as before", 14*time.Second + 10*time.Millisecond, 7100 * time.Millisecond, 5e8},
		{"one CPU since the last that counted", 16 * time.Second, 9 * time.Second, 1e9},
		{"another group with this path", 20 * time.Second, 2 * time.Second, 1e8},
	} {
		if got := at(x.after, x.used); got != x.want {
			t.Errorf("%s: %d, want %d", x.what, got, x.want)
		}
	}

	r.add(&Snapshot{})
	if len(r) != 0 {
		t.Errorf("%d groups that are gone are remembered", len(r))
	}
}

func TestGroupsAreFoundByTheNamesOfEachRuntimeAndDriver(t *testing.T) {
	for name, id := range map[string]string{
		"abc":                      "abc",
		"cri-containerd-abc.scope": "abc",
		"trivet-abc.scope":         "abc",
		"pause-abc":                "abc",
		"crio-abc.scope":           "abc",
	} {
		root := t.TempDir()
		write(t, filepath.Join(root, "sys/fs/cgroup/pod", name, "cpu.stat"), "")
		groups := &tree{group: "/pod"}
		f := finder{groups: hierarchies{root: root, v2: true}, tree: groups}
		p := Pod{SandboxID: "box", Containers: []Container{{ID: id}}}
		p.UID = "u"
		for range 3 {
			f.look([]Pod{p})
		}

		if got := f.byID[id]; got != "/pod/"+name || f.byID["box"] != "" {
			t.Errorf("%s: %q", name, got)
		}
		if n := groups.asked.Load(); n != 1 {
			t.Errorf("%s: the groups of pods were listed %d times", name, n)
		}

		f.look(nil)
		if len(f.byID) != 0 {
			t.Errorf("%s is remembered", name)
		}
	}
}

func TestGroupOfAProcess(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/kubelet.service\n":                    "/system.slice/kubelet.service",
		"5:cpu,cpuacct:/c\n4:memory:/m\n0::/unified\n":          "/m",
		"12:name=systemd:/a\n4:hugetlb,memory:/b:c\n1:cpu:/d\n": "/b:c",
		"":        "",
		"0:/x\n":  "",
		"0::/\n":  "/",
		"x:y:z\n": "",
	} {
		if got := groupOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzFilesOfTheKernel(f *testing.F) {
	f.Add([]byte("5:cpu,cpuacct:/c\n4:memory:/m\n"))
	f.Add([]byte("max 100000\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		groupOf(string(b))
		parse(b)
	})
}
