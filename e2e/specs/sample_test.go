package specs

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// passedSpecs are so many specs that have passed, with those that no sample has.
func passedSpecs(n int, took time.Duration) Times {
	passed := Times{
		"[sig-node] alone [Serial]":       time.Second,
		"[sig-node] breaks [Disruptive]":  time.Second,
		"[sig-node] takes 20 s or longer": sampleEach,
		Smoke()[0]:                        time.Second,
	}
	for i := range n {
		passed[fmt.Sprintf("[sig-node] %d", i)] = took
	}
	return passed
}

func TestSampleIsThatOfTheCommit(t *testing.T) {
	passed := passedSpecs(400, 5*time.Second)
	one, same, other := Sample("c1", passed), Sample("c1", passed), Sample("c2", passed)
	if len(one) != sampleSize || !slices.Equal(one, same) {
		t.Errorf("samples of one commit: %q, %q", one, same)
	}
	if slices.Equal(one, other) {
		t.Error("two commits have the same sample")
	}
}

func TestEachSpecIsInTheSampleOfSomeCommit(t *testing.T) {
	seen := map[string]bool{}
	for i := range 100 {
		for _, n := range Sample(fmt.Sprint(i), passedSpecs(40, time.Second)) {
			seen[n] = true
		}
	}

	if len(seen) != 40 {
		t.Errorf("%d specs, want 40: %v", len(seen), seen)
	}
}

func TestSampleIsBoundedInTime(t *testing.T) {
	if got := Sample("c", passedSpecs(100, 15*time.Second)); len(got) != int(sampleTotal/(15*time.Second)) {
		t.Errorf("%d specs of 15 s", len(got))
	}
	if got := Sample("c", nil); len(got) != 0 {
		t.Errorf("a sample of nothing has %q", got)
	}
}
