package specs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shard is one of several parts of a set that machines run instead of all of it. The zero value is the whole
// set.
type Shard struct {
	// Number is 1 to Of.
	Number, Of int
}

// ParseShard reads "2/5", the second of five parts; "" is the whole set.
func ParseShard(text string) (Shard, error) {
	if text == "" {
		return Shard{}, nil
	}

	number, of, _ := strings.Cut(text, "/")
	n, errNumber := strconv.Atoi(number)
	total, errOf := strconv.Atoi(of)
	if errNumber != nil || errOf != nil || n < 1 || n > total {
		return Shard{}, fmt.Errorf("shard %q is not a number and how many there are, such as 2/5", text)
	}

	return Shard{Number: n, Of: total}, nil
}

// Times are how long specs take, as far as that is known.
type Times map[string]time.Duration

// unknownTime is taken for a spec of which nothing is known.
const unknownTime = 15 * time.Second

// Of is the time of a spec.
func (t Times) Of(name string) time.Duration {
	if took, known := t[name]; known {
		return took
	}
	return unknownTime
}

// Pick returns the names that are the shard's, in their order. All shards of a set with the same times have
// together each name once, and take about the same time: each spec, the longest first, is the shard's that
// has the least to do so far. Those that run alone are divided in the same way before the others.
func (s Shard) Pick(names []string, times Times) []string {
	if s.Of <= 1 {
		return names
	}

	mine := map[string]bool{}
	for _, alone := range []bool{true, false} {
		kind := choose(names, func(n string) bool { return IsSerial(n) == alone })
		for _, n := range s.share(kind, times) {
			mine[n] = true
		}
	}

	return choose(names, func(n string) bool { return mine[n] })
}

// share returns those of the names that are the shard's.
func (s Shard) share(names []string, times Times) []string {
	sorted := slices.SortedFunc(slices.Values(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(times.Of(b), times.Of(a)), strings.Compare(a, b))
	})

	var mine []string
	load := make([]time.Duration, s.Of)
	for _, n := range sorted {
		least := slices.Index(load, slices.Min(load))
		load[least] += times.Of(n)
		if least == s.Number-1 {
			mine = append(mine, n)
		}
	}

	return mine
}
