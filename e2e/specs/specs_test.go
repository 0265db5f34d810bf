package specs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSmokeSetHas158DistinctSpecs(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range Smoke() {
		if seen[n] {
			t.Errorf("%s is listed twice", n)
		}

		seen[n] = true
		if !strings.HasPrefix(n, "[sig-") {
			t.Errorf("%q is not a spec name", n)
		}
	}

	// A spec that is added or dropped is added or dropped here, too.
	if len(seen) != 158 {
		t.Errorf("%d specs, want 158", len(seen))
	}
}

func TestConformanceSetHas710SpecsOfTheSuitesVersion(t *testing.T) {
	version, names := Conformance()
	if len(names) != 710 || len(slices.Compact(slices.Clone(names))) != 710 {
		t.Errorf("%d names, want 710 different ones", len(names))
	}

	for _, n := range names {
		if !IsConformance(n) || SIG(n) == "" {
			t.Errorf("%q is not of the set", n)
		}
	}

	module, err := os.ReadFile("../conformance/go.mod")
	if err != nil {
		t.Fatal(err)
	}

	pinned := regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v\S+)`).FindSubmatch(module)
	if pinned == nil || string(pinned[1]) != version {
		t.Errorf("conformance.txt is of %s, and e2e/conformance pins %s: run make conformance-names",
			version, pinned)
	}

	if FormatConformance(version, names) != conformance {
		t.Error("conformance.txt is not as the command writes it: run make conformance-names")
	}
}

func TestSmokeSpecsAreInTheConformanceSet(t *testing.T) {
	_, names := Conformance()
	for _, n := range Smoke() {
		if IsConformance(n) && !slices.Contains(names, n) {
			t.Errorf("the suite has no spec %q", n)
		}
	}
}

// suiteSpecs are a suite in small.
var suiteSpecs = []string{
	"[sig-network] A [Conformance]",
	"[sig-network] B",
	"[sig-network] C [Feature:X]",
	"[sig-storage] D [NodeConformance] [Serial]",
	"[sig-storage] E [Serial]",
	"[sig-node] F [FeatureGate:Y] [Beta]",
	"[sig-node] G",
	"[sig-storage] In-tree Volumes [Driver: nfs3] H",
	"[sig-network] I [Feature:NetworkPolicy]",
	"[sig-network] [Feature:SCTPConnectivity] J [Feature:NetworkPolicy]",
	"External Storage [Driver: csi.trivet.dev] K [Feature:X]",
	"External Storage [Driver: csi.trivet.dev] L [Slow]",
	"External Storage [Driver: csi.example.org] M",
}

func TestSetsAreChosenByName(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("# mine\n[sig-node] G\n\n[sig-network] B\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	for set, want := range map[string][]string{
		"conformance": {suiteSpecs[0], suiteSpecs[3]},
		"network":     {suiteSpecs[1]},
		"storage":     {suiteSpecs[4]},
		"node":        {suiteSpecs[6]},
		"policy":      {suiteSpecs[8]},
		"external":    {suiteSpecs[10]},
		"all":         suiteSpecs,
		list:          {suiteSpecs[1], suiteSpecs[6]},
	} {
		got, err := Select(suiteSpecs, set)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("set %s: %q, %v, want %q", set, got, err, want)
		}
	}
}

func TestSetThatIsNotThereIsAnError(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}

		return path
	}

	for set, fault := range map[string]string{
		"conformnace":               "neither a set (conformance, node,",
		write("wrong", "[sig-x] Q"): `no spec "[sig-x] Q"`,
		write("empty", "# none\n"):  "names no specs",
	} {
		if _, err := Select(suiteSpecs, set); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("set %s: error %v, want %q", set, err, fault)
		}
	}
}

func TestShardsHaveEachSpecOnceAndTakeAboutTheSameTime(t *testing.T) {
	_, names := Conformance()
	times := Times{names[0]: 5 * time.Minute, names[1]: 4 * time.Minute}

	var all []string
	var loads []time.Duration
	for n := 1; n <= 5; n++ {
		mine := Shard{Number: n, Of: 5}.Pick(names, times)
		all = append(all, mine...)

		var load time.Duration
		for _, name := range mine {
			load += times.Of(name)
		}

		loads = append(loads, load)
	}

	slices.Sort(all)
	if !slices.Equal(all, slices.Sorted(slices.Values(names))) {
		t.Errorf("the shards have %d names, want each of %d once", len(all), len(names))
	}
	if spread := slices.Max(loads) - slices.Min(loads); spread > 2*unknownTime {
		t.Errorf("the shards take %v", loads)
	}
}

func TestShardsAreNumbersInTheirRange(t *testing.T) {
	for text, want := range map[string]Shard{"": {}, "1/1": {1, 1}, "2/5": {2, 5}} {
		if got, err := ParseShard(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}

	for _, text := range []string{"0/5", "6/5", "2", "a/b", "1/0", "-1/5"} {
		if _, err := ParseShard(text); err == nil {
			t.Errorf("%q is not refused", text)
		}
	}
}
