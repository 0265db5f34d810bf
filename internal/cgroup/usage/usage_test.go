package usage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// recorded is the group of a container on cgroup v1 or v2.
func recorded(v2 bool) Group {
	const data = "usagetest/testdata/"
	group := Group{Name: "/g", V2: v2, PageSizes: []string{"2MB", "1GB"}}
	group.Dir = func(controller string) string { return data + "v1/" + controller }
	if v2 {
		group.Dir = func(string) string { return data + "v2" }
	}
	return group
}

func TestGroupOfVersion1(t *testing.T) {
	noSwap := uint64(0)
	want := Reading{
		Detail:        Full,
		CPU:           84_061_045,
		User:          70 * time.Millisecond,
		System:        30 * time.Millisecond,
		Memory:        22_360_064,
		WorkingSet:    22_360_064 - 20_996_096,
		RSS:           204_800,
		MemoryLimit:   64 << 20,
		MemoryPeak:    22_814_720,
		Kernel:        704_512,
		PageFaults:    3933,
		OwnPageFaults: 3933,
		Cache:         21_008_384,
		InactiveFile:  20_996_096,
		ActiveFile:    12_288,
		Dirty:         36_864,
		SwapLimit:     &noSwap,
		PIDs:          2,
		PIDLimit:      100,
		Throttling:    Throttling{Periods: 9, Throttled: 9, ThrottledTime: 744_728_538},
		HugePages:     []HugePages{{Size: "2MB", Usage: 4 << 20, Peak: 6 << 20, LimitHits: 3}},
		IO: []Device{
			{
				Major:    8,
				Bytes:    [operations]uint64{40_960, 20_971_520, 20_975_616, 36_864, 0, 21_012_480},
				Requests: [operations]uint64{10, 20, 21, 9, 0, 30},
			},
			{
				Major:    7,
				Minor:    3,
				Bytes:    [operations]uint64{512, 0, 512, 0, 0, 512},
				Requests: [operations]uint64{1, 0, 1, 0, 0, 1},
			},
		},
	}

	check(t, recorded(false), want)
}

// crun makes a group of its own below a scope of systemd's, and writes there what is asked for by file.
func TestSwapIsLimitedByAScopeAndTheGroupOfCrunBelowIt(t *testing.T) {
	dir := t.TempDir()
	group := Group{V2: true, Dir: func(string) string { return dir }}
	if err := os.Mkdir(filepath.Join(dir, CrunGroup), 0o700); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct{ scope, below, want string }{
		{"max", "max", "none"},
		{"max", "4096", "4096"},
		{"4096", "max", "4096"},
		{"8192", "4096", "4096"},
		{"4096", "8192", "4096"},
	} {
		for name, text := range map[string]string{
			"cpu.stat":                     "usage_usec 0\n",
			"memory.stat":                  "anon 0\n",
			"memory.swap.max":              c.scope + "\n",
			CrunGroup + "/memory.swap.max": c.below + "\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		reading, err := NewReader(group, false).Read(Basic)
		got := "none"
		if reading.SwapLimit != nil {
			got = strconv.FormatUint(*reading.SwapLimit, 10)
		}
		if got != c.want || err != nil {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// twoDevices are those of io.stat.
var twoDevices = []Device{
	{
		Major:    8,
		Bytes:    [operations]uint64{Read: 40_960, Write: 20_971_520, Discard: 4096},
		Requests: [operations]uint64{Read: 10, Write: 20, Discard: 1},
	},
	{
		Major:    253,
		Bytes:    [operations]uint64{Write: 512},
		Requests: [operations]uint64{Write: 1},
		Cost:     &Cost{Usage: 12 * time.Microsecond},
	},
}

func TestGroupOfVersion2(t *testing.T) {
	swap := uint64(32 << 20)
	want := Reading{
		Detail:             Full,
		CPU:                136_243 * time.Microsecond,
		User:               73_645 * time.Microsecond,
		System:             62_598 * time.Microsecond,
		Memory:             22_360_064,
		WorkingSet:         22_360_064 - 12_111_872,
		RSS:                1_552_384,
		MemoryLimit:        64 << 20,
		MemoryPeak:         22_814_720,
		Kernel:             507_904,
		PageFaults:         2501,
		OwnPageFaults:      2501,
		MajorPageFaults:    7,
		OwnMajorPageFaults: 7,
		Cache:              20_271_104,
		MappedFile:         2_162_688,
		Dirty:              8192,
		Writeback:          4096,
		ActiveFile:         8_159_232,
		InactiveFile:       12_111_872,
		RefaultsAnon:       3,
		RefaultsFile:       17,
		LimitHits:          4,
		OOMKills:           2,
		Swap:               4096,
		SwapLimit:          &swap,
		PIDs:               2,
		V2:                 &UnifiedMemory{HighEvents: 5, PagesScanned: 180, PagesReclaimed: 120},
		HugePages:          []HugePages{{Size: "2MB", Usage: 4 << 20, LimitHits: 3}},
	}
	want.Throttling = Throttling{
		Periods:       9,
		Throttled:     8,
		ThrottledTime: 744_728 * time.Microsecond,
		Bursts:        2,
		BurstTime:     1500 * time.Microsecond,
	}
	want.IO = twoDevices
	want.Stalls = &Stalls{
		CPU: Pressure{
			Some: Stall{
				Total:  582_749 * time.Microsecond,
				Avg10:  12.5,
				Avg60:  3.25,
				Avg300: 0.01,
			},
			Full: Stall{Total: 581_678 * time.Microsecond, Avg10: 1, Avg60: 0.5},
		},
		IO: Pressure{
			Some: Stall{Total: 8441 * time.Microsecond},
			Full: Stall{Total: 8441 * time.Microsecond},
		},
	}

	check(t, recorded(true), want)
}

// check reads a group several times, with files kept open and without.
func check(t *testing.T, group Group, want Reading) {
	t.Helper()
	for _, keep := range []bool{false, true, true} {
		r := NewReader(group, keep)
		defer r.Close()

		for range 2 {
			got, err := r.Read(Full)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Reading{}, "Time")); diff != "" {
				t.Errorf("keep %v: %s", keep, diff)
			}
		}
	}
}

func TestBasicReadingHasWhatCRIHas(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		got, err := NewReader(recorded(v2), false).Read(Basic)
		if err != nil {
			t.Fatal(err)
		}
		if got.CPU == 0 || got.WorkingSet == 0 || got.PIDs != 2 || got.SwapLimit == nil || got.IO != nil ||
			(got.Stalls != nil) != v2 {
			t.Errorf("v2 %v: %+v", v2, got)
		}
	}
}

func TestGroupThatIsMadeAgainIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "g")
	group := recorded(true)
	group.Dir = func(string) string { return dir }
	r := NewReader(group, true)
	defer r.Close()

	if _, err := r.Read(Basic); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before there is a group: %v", err)
	}

	for range 2 {
		if err := os.CopyFS(dir, os.DirFS("usagetest/testdata/v2")); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Read(Basic); err != nil || got.Memory == 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}

		// Unlike a cgroup's, files that are removed can still be read.
		r.Close()
		if _, err := r.Read(Basic); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("after it was removed: %v", err)
		}
	}
}

func TestReaderHasFewDescriptors(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		r := NewReader(recorded(v2), true)
		if _, err := r.Read(Full); err != nil {
			t.Fatal(err)
		}

		open := 0
		for _, fd := range append(r.dirs[:], r.files[:]...) {
			if fd > 0 {
				open++
			}
		}

		if open > MaxOpen {
			t.Errorf("v2 %v: %d descriptors, more than %d", v2, open, MaxOpen)
		}
		r.Close()
	}
}

func TestProcessesAreThoseOfAGroupAndBelow(t *testing.T) {
	dir := t.TempDir()
	group := recorded(true)
	group.Dir = func(string) string { return dir }
	for name, text := range map[string]string{".": "30\n0\n", "a": "4\n", "a/b": "5\n"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "cgroup.procs"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	got, err := NewReader(group, false).Processes()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Processes{Count: 4, PIDs: []int{30, 4, 5}}, got); diff != "" {
		t.Error(diff)
	}

	group.Dir = func(string) string { return filepath.Join(dir, "gone") }
	if got, err := NewReader(group, false).Processes(); got.Count != 0 || err != nil {
		t.Errorf("of a group that is gone: %+v, %v", got, err)
	}
}

func TestListOfProcessesHasABound(t *testing.T) {
	dir := t.TempDir()
	group := recorded(true)
	group.Dir = func(string) string { return dir }
	var text []byte
	for range 10_000 {
		text = append(text, "1234567\n"...)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), text, 0o600); err != nil {
		t.Fatal(err)
	}

	got, err := NewReader(group, false).Processes()
	if err != nil || got.Count != 10_000 || len(got.PIDs) != maxListed {
		t.Errorf("%d processes, %d listed, %v", got.Count, len(got.PIDs), err)
	}
	for _, pid := range got.PIDs {
		if pid != 1234567 {
			t.Fatalf("process %d", pid)
		}
	}
}

func FuzzContents(f *testing.F) {
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10"))
	f.Add([]byte("8:0 rbytes=1 wbytes=\n8:0 Read 5\nTotal 5\n"))
	f.Add([]byte("pgfault 1\n\n 18446744073709551616"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		p := &pass{out: &Reading{}}
		p.unifiedCPU(text)
		p.unifiedMemory(text)
		p.unifiedEvents(text)
		p.legacyMemory(text)
		p.legacyThrottling(text)
		pressureOf(text, &Pressure{})
		ioOf(text)
		blkioOf(nil, text, (*Device).bytes)
	})
}
