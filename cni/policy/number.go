package policy

// numbers gives groups their numbers. A group keeps the number that its first member had, so that a change
// which leaves most groups as they are leaves most numbers as they are. No number is used for two things at
// once, nor is 0.
type numbers[K comparable] struct {
	next *uint32
	had  map[K]uint32
}

func newNumbers[K comparable](next *uint32) *numbers[K] {
	return &numbers[K]{next: next, had: map[K]uint32{}}
}

// assign returns a number for each group. The members of all groups are distinct.
func (n *numbers[K]) assign(groups [][]K) []uint32 {
	taken := map[uint32]bool{}
	has := map[K]uint32{}
	out := make([]uint32, len(groups))

	for i, members := range groups {
		for _, m := range members {
			if id := n.had[m]; id != 0 && !taken[id] {
				out[i] = id
				taken[id] = true
				break
			}
		}
	}

	for i, members := range groups {
		if out[i] == 0 {
			*n.next++
			out[i] = *n.next
		}
		for _, m := range members {
			has[m] = out[i]
		}
	}

	n.had = has
	return out
}
