package eviction

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/threshold"
)

var start = time.Unix(1_800_000_000, 0)

// thresholds reads "memory.available<100" and, with a grace and a minimum reclaim,
// "memory.available<200 soft 1m reclaim 50".
func thresholds(t *testing.T, texts ...string) []threshold.Threshold {
	t.Helper()
	s := threshold.Statements{
		Hard:           map[string]string{},
		Soft:           map[string]string{},
		SoftGrace:      map[string]string{},
		MinimumReclaim: map[string]string{},
	}

	for _, text := range texts {
		words := strings.Fields(text)
		signal, amount, _ := strings.Cut(words[0], "<")
		into := s.Hard
		for i := 1; i+1 < len(words); i += 2 {
			switch words[i] {
			case "soft":
				into = s.Soft
				s.SoftGrace[signal] = words[i+1]
			case "reclaim":
				s.MinimumReclaim[signal] = words[i+1]
			}
		}

		into[signal] = amount
	}

	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}

	return all
}

// left is an observation in which so much is left of 1000.
func left(amounts map[string]int64) Observation {
	out := Observation{}
	for signal, amount := range amounts {
		out[signal] = Observed{Left: amount, Capacity: 1000}
	}
	return out
}

func signals(met []threshold.Threshold) (out []string) {
	for _, t := range met {
		out = append(out, t.Signal)
	}
	return out
}

// one is a look in a table.
type one struct {
	after    time.Duration
	left     map[string]int64
	met      []string
	pressure []v1.NodeConditionType
	due      time.Duration
}

func play(t *testing.T, hold time.Duration, all []threshold.Threshold, looks []one) {
	t.Helper()
	h := newHistory(hold)
	for _, l := range looks {
		got := h.judge(all, left(l.left), start.Add(l.after))
		if !slices.Equal(signals(got.Met), l.met) {
			t.Errorf("after %s: acts on %q, want %q", l.after, signals(got.Met), l.met)
		}
		if !slices.Equal(got.Pressure, l.pressure) {
			t.Errorf("after %s: pressure %q, want %q", l.after, got.Pressure, l.pressure)
		}

		due := time.Duration(0)
		if !got.Due.IsZero() {
			due = got.Due.Sub(start)
		}
		if due != l.due {
			t.Errorf("after %s: due after %s, want %s", l.after, due, l.due)
		}
	}
}

var (
	memoryPressure = []v1.NodeConditionType{v1.NodeMemoryPressure}
	diskPressure   = []v1.NodeConditionType{v1.NodeDiskPressure}
)

func TestAHardThresholdIsActedOnAtOnceAndItsPressureIsHeld(t *testing.T) {
	low := []string{"memory.available"}
	mem := func(amount int64) map[string]int64 { return map[string]int64{threshold.Memory: amount} }
	play(t, 5*time.Minute, thresholds(t, "memory.available<100"), []one{
		{after: 0, left: mem(100)},
		{after: 10 * time.Second, left: mem(99), met: low, pressure: memoryPressure},
		{after: 20 * time.Second, left: mem(100), pressure: memoryPressure},
		{after: 309 * time.Second, left: mem(100), pressure: memoryPressure},
		{after: 310 * time.Second, left: mem(100)},
	})
}

func TestASoftThresholdIsActedOnWhenItWasCrossedForItsGrace(t *testing.T) {
	low := []string{"memory.available"}
	mem := func(amount int64) map[string]int64 { return map[string]int64{threshold.Memory: amount} }
	play(t, time.Minute, thresholds(t, "memory.available<200 soft 30s"), []one{
		{after: 0, left: mem(150), pressure: memoryPressure, due: 30 * time.Second},
		{after: 10 * time.Second, left: mem(150), pressure: memoryPressure, due: 30 * time.Second},

		// It begins again when enough was left in between.
		{after: 20 * time.Second, left: mem(250), pressure: memoryPressure},
		{after: 25 * time.Second, left: mem(150), pressure: memoryPressure, due: 55 * time.Second},
		{after: 54 * time.Second, left: mem(150), pressure: memoryPressure, due: 55 * time.Second},
		{after: 55 * time.Second, left: mem(150), met: low, pressure: memoryPressure},
	})
}

func TestAThresholdThatWasActedOnIsResolvedByTheMinimumReclaim(t *testing.T) {
	low := []string{"nodefs.available"}
	disk := func(amount int64) map[string]int64 { return map[string]int64{threshold.NodeFS: amount} }
	play(t, time.Second, thresholds(t, "nodefs.available<100 reclaim 50"), []one{
		{after: 0, left: disk(120)},
		{after: 10 * time.Second, left: disk(90), met: low, pressure: diskPressure},
		{after: 20 * time.Second, left: disk(149), met: low, pressure: diskPressure},
		{after: 30 * time.Second, left: disk(150)},
		{after: 40 * time.Second, left: disk(120)},
	})
}

// kubelet: memory before all else; a soft threshold that was not acted on yet has no minimum reclaim.
func TestMemoryIsActedOnFirst(t *testing.T) {
	all := thresholds(t, "nodefs.available<100", "pid.available<100", "memory.available<100",
		"memory.available<300 soft 10s")
	low := map[string]int64{"nodefs.available": 1, "pid.available": 1, "memory.available": 1}
	h := newHistory(time.Minute)
	got := h.judge(all, left(low), start)
	want := []string{"memory.available", "nodefs.available", "pid.available"}
	if !slices.Equal(signals(got.Met), want) {
		t.Errorf("%q, want %q", signals(got.Met), want)
	}

	got = h.judge(all, left(low), start.Add(10*time.Second))
	want = []string{"memory.available", "memory.available", "nodefs.available", "pid.available"}
	if !slices.Equal(signals(got.Met), want) || !got.Met[0].Hard() {
		t.Errorf("%q, want %q, the hard one first", signals(got.Met), want)
	}

	pressure := []v1.NodeConditionType{v1.NodeDiskPressure, v1.NodeMemoryPressure, v1.NodePIDPressure}
	if !slices.Equal(got.Pressure, pressure) {
		t.Errorf("pressure %q", got.Pressure)
	}
}

func TestWhatIsNotMeasuredIsNotCrossed(t *testing.T) {
	got := newHistory(time.Minute).judge(thresholds(t, "memory.available<100"), Observation{}, start)
	if len(got.Met)+len(got.Pressure) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestAThresholdIsResolvedByItsMinimumReclaim(t *testing.T) {
	node := thresholds(t, "nodefs.available<100 reclaim 50")[0]
	for amount, want := range map[int64]bool{99: true, 149: true, 150: false} {
		if got := unresolved(node, left(map[string]int64{"nodefs.available": amount})); got != want {
			t.Errorf("%d left: unresolved %v", amount, got)
		}
	}
	if unresolved(node, Observation{}) {
		t.Error("what is not measured is unresolved")
	}
}

func TestALookComesSoonerWhenAThresholdIsNear(t *testing.T) {
	all := thresholds(t, "memory.available<100")
	at := func(left int64, after time.Duration) Observation {
		return Observation{threshold.Memory: {Left: left, Capacity: 1000, Time: start.Add(after)}}
	}

	for name, c := range map[string]struct {
		before, now Observation
		want        bool
	}{
		"far":                    {nil, at(800, 0), false},
		"crossed":                {nil, at(50, 0), true},
		"close":                  {nil, at(199, 0), true},
		"falls slowly":           {at(801, 0), at(800, 10*time.Second), false},
		"falls fast":             {at(1000, 0), at(500, 10*time.Second), true},
		"rises":                  {at(300, 0), at(800, 10*time.Second), false},
		"was not measured":       {Observation{}, at(800, 0), false},
		"is not measured":        {at(800, 0), Observation{}, false},
		"the clock stands":       {at(1000, 0), at(500, 0), false},
		"the clock was set back": {at(1000, time.Hour), at(500, 0), false},
	} {
		if got := near(all, c.before, c.now, 20*time.Second); got != c.want {
			t.Errorf("%s: near %v", name, got)
		}
	}
}

// Thresholds of the kernel count the page cache that can be given back, which is left.
func TestTheKernelIsAskedForTheNextThresholdOfMemory(t *testing.T) {
	all := thresholds(t, "memory.available<100", "memory.available<300 soft 1m", "nodefs.available<100")
	seen := Observation{
		threshold.Memory: {Left: 600, Capacity: 1000, Group: "/", Cached: 50},
		threshold.NodeFS: {Left: 1, Capacity: 1000},
	}
	want := []memoryalarm.Aim{{Group: "/", Now: 450, Limit: 750}}
	if got := aims(all, seen); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}

	seen[threshold.Memory] = Observed{Left: 200, Capacity: 1000, Group: "/"}
	want = []memoryalarm.Aim{{Group: "/", Now: 800, Limit: 900}}
	if got := aims(all, seen); !slices.Equal(got, want) {
		t.Errorf("after the soft one: %+v, want %+v", got, want)
	}

	seen[threshold.Memory] = Observed{Left: 100, Capacity: 1000, Group: "/"}
	if got := aims(all, seen); len(got) > 0 {
		t.Errorf("with nothing left to cross: %+v", got)
	}
}
