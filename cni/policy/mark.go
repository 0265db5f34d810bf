package policy

import "math/rand/v2"

// mark stands for a set: the sum, without carry, of random numbers that its members have. Two sets have the
// same mark only by chance, which nobody who writes policies can help: the numbers are new for each process.
type mark [2]uint64

func newMark() mark { return mark{rand.Uint64(), rand.Uint64()} }

// toggle adds a member, or removes it.
func (m *mark) toggle(member mark) {
	m[0] ^= member[0]
	m[1] ^= member[1]
}
