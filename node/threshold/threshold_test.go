package threshold

import (
	"fmt"
	"slices"
	"testing"
)

func TestAmountsAndSharesAreRead(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64 // of a capacity of 1000
	}{
		{"100Mi", 100 << 20},
		{"1.5Gi", 3 << 29},
		{"5", 5},
		{"10%", 100},
		{"2.5%", 25},
		{"0%", 0},
		{"100%", 0}, // switched off
	} {
		got, err := Parse(c.text)
		if err != nil || got.Of(1000) != c.want {
			t.Errorf("%s: %d of 1000, %v, want %d", c.text, got.Of(1000), err, c.want)
		}
	}
}

// Messages that kubelet writes have an amount as the configuration has it, and a share as a binary quantity.
func TestAmountsAreWrittenAsKubeletWritesThem(t *testing.T) {
	for text, want := range map[string]string{
		"100Mi": "100Mi",
		"1G":    "1G",
		"1500M": "1500M",
		"10%":   "429496736", // of 4Gi: kubelet's precision is that of 32 bits
		"5%":    "214748368",
		"25%":   "1Gi",
	} {
		a, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}

		q := a.Quantity(4 << 30)
		if got := q.String(); got != want {
			t.Errorf("%s of 4Gi is written %s, want %s", text, got, want)
		}
	}
}

func TestWhatIsNoThresholdIsRefused(t *testing.T) {
	for _, text := range []string{"", "x", "-1%", "101%", "NaN%", "%", "0", "-5Mi", "10 %", "1e999%"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is taken as %+v", text, got)
		}
	}
	if _, err := ParseSet(map[string]string{"memory.free": "1Mi"}); err == nil {
		t.Error("an unknown signal is taken")
	}
}

func TestAThresholdIsCrossedBelowIt(t *testing.T) {
	all, err := Statements{
		Hard:           map[string]string{Memory: "10%"},
		MinimumReclaim: map[string]string{Memory: "50"},
	}.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}

	if memory := all[0]; !memory.Crossed(99, 1000) || memory.Crossed(100, 1000) {
		t.Error("crossed at the wrong amount")
	}
	if memory := all[0]; !memory.Unresolved(149, 1000) || memory.Unresolved(150, 1000) {
		t.Error("resolved at the wrong amount")
	}
}

func TestStatementsAreListedAsKubeletReadsThem(t *testing.T) {
	all, err := Statements{
		Hard: map[string]string{
			"pid.available":    "10%",
			"nodefs.available": "0%",
			"memory.available": "100Mi",
		},
		Soft: map[string]string{
			"memory.available":   "1Gi",
			"imagefs.inodesFree": "5%",
		},
		SoftGrace: map[string]string{
			"memory.available":   "1m30s",
			"imagefs.inodesFree": "0s",
		},
		MinimumReclaim: map[string]string{
			"memory.available":   "200Mi",
			"pid.available":      "0",
			"imagefs.inodesFree": "25%",
		},
		OfPods: true,
	}.List()
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, one := range all {
		amount, reclaim := one.Amount.Quantity(1000), one.Reclaim.Quantity(1000)
		got = append(got, fmt.Sprintf("%s<%s grace %s reclaim %s, hard %v",
			one.Signal, amount.String(), one.Grace, reclaim.String(), one.Hard()))
	}

	// A soft threshold without a grace period is hard.
	want := []string{
		"memory.available<100Mi grace 0s reclaim 200Mi, hard true",
		"allocatableMemory.available<100Mi grace 0s reclaim 200Mi, hard true",
		"pid.available<100 grace 0s reclaim 0, hard true",
		"memory.available<1Gi grace 1m30s reclaim 200Mi, hard false",
		"imagefs.inodesFree<50 grace 0s reclaim 250, hard true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStatementsThatKubeletRefusesAreRefused(t *testing.T) {
	for name, s := range map[string]Statements{
		"hard":     {Hard: map[string]string{"memory.free": "1Mi"}},
		"soft":     {Soft: map[string]string{"memory.available": "-1"}},
		"no grace": {Soft: map[string]string{"memory.available": "1Mi"}},
		"reclaim": {
			Hard:           map[string]string{"memory.available": "1Mi"},
			MinimumReclaim: map[string]string{"memory.available": "x"},
		},
	} {
		if got, err := s.List(); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("10%")
	f.Add("100Mi")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := Parse(text); err == nil && got.Of(1<<40) < 0 {
			t.Errorf("%q: %+v is negative", text, got)
		}
	})
}
