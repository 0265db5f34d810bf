package policy

// subject is a direction of a local pod.
type subject struct {
	pod       string
	direction Direction
}

// numbers gives groups of subjects their numbers. A group keeps the number that its first member had, so that
// a change which leaves most groups as they are leaves most numbers as they are. No number is used for two
// groups at once, nor is 0.
type numbers struct {
	last uint32
	had  map[subject]uint32
}

// lastNumber is after which numbers begin at 1 again.
const lastNumber = 1 << 31

// assign returns a number for each group.
func (n *numbers) assign(groups [][]subject) []uint32 {
	if n.last > lastNumber {
		*n = numbers{}
	}

	taken := map[uint32]bool{}
	has := map[subject]uint32{}
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
			n.last++
			out[i] = n.last
		}
		for _, m := range members {
			has[m] = out[i]
		}
	}

	n.had = has
	return out
}
