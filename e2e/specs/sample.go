package specs

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"
)

// The sample that CI runs beside the smoke set: at most so many specs, of at most so much time each and
// together, which four processes run within a minute.
const (
	sampleSize  = 20
	sampleEach  = 20 * time.Second
	sampleTotal = 4 * time.Minute
)

// Sample returns the specs that CI runs for a commit beside the smoke set: others for each commit, of those
// that have passed and can run beside others. passed is how long these took.
func Sample(commit string, passed Times) []string {
	smoke := Smoke()
	rank := map[string][sha256.Size]byte{}
	var names []string
	for name, took := range passed {
		if took < sampleEach && !IsSerial(name) && !IsDisruptive(name) && !slices.Contains(smoke, name) {
			names = append(names, name)
			rank[name] = sha256.Sum256([]byte(commit + "\n" + name))
		}
	}

	slices.SortFunc(names, func(a, b string) int {
		first, second := rank[a], rank[b]
		return bytes.Compare(first[:], second[:])
	})

	var sample []string
	var total time.Duration
	for _, name := range names {
		total += passed[name]
		if total > sampleTotal || len(sample) == sampleSize {
			break
		}

		sample = append(sample, name)
	}

	return sample
}
