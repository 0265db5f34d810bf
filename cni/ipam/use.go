package ipam

import (
	"errors"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Use is how many addresses a range has, without those that are never allocated, and how many are taken.
type Use struct {
	Range Range
	Total float64
	Taken int
}

// Uses counts the addresses of ranges that are taken. A pool that was never used has none. It takes no lock:
// reservations that come and go meanwhile may be counted or not.
func (l Location) Uses(sets []Set) ([]Use, error) {
	var uses []Use
	for _, set := range sets {
		for _, r := range set {
			uses = append(uses, Use{Range: r, Total: r.size()})
		}
	}

	entries, err := os.ReadDir(l.dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	for _, e := range entries {
		address, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}

		// An empty file is a free address.
		info, err := e.Info()
		if err != nil || info.Size() == 0 {
			continue
		}

		for i := range uses {
			if uses[i].Range.Contains(address) {
				uses[i].Taken++
			}
		}
	}

	return uses, nil
}

// size is how many addresses the range can allocate.
func (r Range) size() float64 {
	first := new(big.Int).SetBytes(r.Start.AsSlice())
	last := new(big.Int).SetBytes(r.End.AsSlice())
	n, _ := new(big.Float).SetInt(last.Sub(last, first)).Float64()

	// Both ends are in it, and the gateway is not allocated.
	if !r.Gateway.Less(r.Start) && !r.End.Less(r.Gateway) {
		return n
	}
	return n + 1
}

// Reservation is an address that is taken.
type Reservation struct {
	Address netip.Addr
	Owner   Owner
}

// Reservations lists the addresses that are taken, in order. A pool that was never used has none. It takes no
// lock, and changes nothing.
func (l Location) Reservations() (all []Reservation, err error) {
	p := &Pool{dir: l.dir()}
	names, err := p.names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, name := range names {
		a, notAddress := netip.ParseAddr(name)
		if notAddress != nil {
			continue
		}
		if content := read(p.file(a)); strings.TrimSpace(content) != "" {
			all = append(all, Reservation{Address: a, Owner: parseOwner(content)})
		}
	}
	slices.SortFunc(all, func(a, b Reservation) int { return a.Address.Compare(b.Address) })
	return all, err
}
