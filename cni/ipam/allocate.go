package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/trivet-node/trivet/internal/blocking"
)

var (
	// ErrExhausted means that every address of a range set is reserved.
	ErrExhausted = errors.New("no address is free")
	// ErrNearlyExhausted means that fewer are free than somebody wants to be.
	ErrNearlyExhausted = errors.New("few addresses are free")
)

var errDuplicate = errors.New("address allocated already")

// Lease is an address that was allocated, with the range that it is from.
type Lease struct {
	Address netip.Addr
	Range   Range
}

// Prefix returns the address with the prefix length of its subnet.
func (l Lease) Prefix() netip.Prefix { return netip.PrefixFrom(l.Address, l.Range.Subnet.Bits()) }

// Allocate reserves for owner one address of each set: the one in requested that lies in the set, else the
// next free one, round robin, so that an address rests as long as possible before it is used again. An owner
// that has addresses already is an error, as in host-local. After an error nothing is reserved.
func (p *Pool) Allocate(owner Owner, sets []Set, requested []netip.Addr) (leases []Lease, err error) {
	err = p.Locked(func() error {
		a := allocation{pool: p, owner: owner}
		err := a.run(sets, requested)
		if err != nil && !errors.Is(err, errDuplicate) {
			err = errors.Join(err, p.release(owner))
		}

		leases = a.leases
		return err
	})
	if err != nil {
		return nil, err
	}

	return leases, nil
}

// allocation reserves the addresses of one owner, with the lock held.
type allocation struct {
	pool   *Pool
	owner  Owner
	leases []Lease
}

func (a *allocation) run(sets []Set, requested []netip.Addr) error {
	// Without an entry in the index, reading all reservations would make the thousandth container slow.
	held, _, err := a.pool.indexed(a.owner)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return fmt.Errorf("%w to %s: %s", errDuplicate, a.owner, held[0])
	}

	wanted, err := assign(sets, requested)
	if err != nil {
		return err
	}

	for i, set := range sets {
		if wanted[i].IsValid() {
			err = a.reserveRequested(set, wanted[i])
		} else {
			err = a.reserveNext(i, set)
		}

		if err != nil {
			return err
		}
	}

	return nil
}

// assign returns for each set the requested address that lies in it, or the zero Addr. A gateway, and an
// address that is in no set or for which there is none left, is an error.
func assign(sets []Set, requested []netip.Addr) ([]netip.Addr, error) {
	wanted := make([]netip.Addr, len(sets))
	for _, a := range requested {
		placed := false
		for i, set := range sets {
			if r, ok := set.gatewayOf(a); ok {
				return nil, fmt.Errorf("requested address %s is the gateway of subnet %s", a, r.Subnet)
			}

			if _, in := set.find(a); in && !wanted[i].IsValid() && !placed {
				wanted[i] = a
				placed = true
			}
		}

		if !placed {
			return nil, fmt.Errorf("requested address %s is in no range of the network", a)
		}
	}

	return wanted, nil
}

// reserve reserves one address; it reports false when another owner has it.
func (a *allocation) reserve(address netip.Addr, r Range) (bool, error) {
	leases := append(a.leases, Lease{Address: address, Range: r})
	if err := a.pool.writeIndex(a.owner, leases); err != nil {
		return false, err
	}
	reserved, err := a.pool.publish(address, a.owner)
	if reserved {
		a.leases = leases
	}
	return reserved, err
}

func (a *allocation) reserveRequested(set Set, address netip.Addr) error {
	r, _ := set.find(address)
	reserved, err := a.reserve(address, r)
	if err == nil && !reserved {
		err = fmt.Errorf("requested address %s is taken", address)
	}
	return err
}

// looksFrom is after how many reserved addresses the pool is taken for nearly full: then looking at an
// address first is cheaper than writing the index and failing to reserve it.
const looksFrom = 16

// reserveNext reserves the first free address after the one that was allocated last from the set with a
// number.
func (a *allocation) reserveNext(number int, set Set) (err error) {
	tried := 0
	reserved := netip.Addr{}
	set.eachAfter(a.pool.last(number), func(address netip.Addr, r Range) bool {
		tried++
		if tried > looksFrom && a.pool.isTaken(address) {
			return true
		}

		var ok bool
		ok, err = a.reserve(address, r)
		if ok {
			reserved = address
		}

		return !ok && err == nil
	})

	switch {
	case err != nil:
		return err
	case !reserved.IsValid():
		return fmt.Errorf("%w in %s (%d addresses)", ErrExhausted, set[0].Subnet, tried)
	}

	// A lost last_reserved_ip costs only the rest of an address, so a failure to write it is not an error.
	_ = overwrite(a.pool.lastFile(number), reserved.String())
	return nil
}

// overwrite writes a file in place. ext4 writes a file that was truncated to nothing to the disk when it is
// closed, and this one is written for each container.
func overwrite(path, content string) error {
	f, err := blocking.Open(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(content); err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}
