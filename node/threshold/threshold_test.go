package threshold

import "testing"

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
	set, err := ParseSet(map[string]string{Memory: "10%"})
	if err != nil {
		t.Fatal(err)
	}
	if !set.Crossed(Memory, 99, 1000) || set.Crossed(Memory, 100, 1000) || set.Crossed(PIDs, 0, 1000) {
		t.Error("crossed at the wrong amount, or without a threshold")
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
