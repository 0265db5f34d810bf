package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// writeIndex writes which addresses owner has or is about to get. Replacing a link takes two steps; in
// between the reservations themselves say it.
func (p *Pool) writeIndex(owner Owner, leases []Lease) error {
	words := make([]string, len(leases))
	for i, l := range leases {
		words[i] = l.Address.String()
	}

	list := strings.Join(words, " ")

	path := filepath.Join(p.dir, indexDir, owner.index())
	err := os.Symlink(list, path)
	if errors.Is(err, os.ErrExist) {
		if err = os.Remove(path); err == nil {
			err = os.Symlink(list, path)
		}
	}

	if err != nil {
		return fmt.Errorf("write index of %s: %w", owner, err)
	}

	return nil
}

// Find returns the addresses that owner holds, also those of a reservation that upstream's host-local made.
func (p *Pool) Find(owner Owner) (held []netip.Addr, err error) {
	err = p.Locked(func() error {
		held, err = p.find(owner)
		return err
	})
	return held, err
}

// find uses the index. It reads all reservations when the owner is not in it: another plugin may have made
// them.
func (p *Pool) find(owner Owner) ([]netip.Addr, error) {
	held, known, err := p.indexed(owner)
	if known || err != nil {
		return held, err
	}
	err = p.eachReservation(func(a netip.Addr, content string) error {
		if matches(content, owner) {
			held = append(held, a)
		}
		return nil
	})
	return held, err
}

// indexed returns what the index says that owner holds, less what it does not hold any more. known is false
// for an owner without an entry.
func (p *Pool) indexed(owner Owner) (held []netip.Addr, known bool, err error) {
	list, err := os.Readlink(filepath.Join(p.dir, indexDir, owner.index()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up addresses of %s: %w", owner, err)
	}

	for word := range strings.FieldsSeq(list) {
		a, err := netip.ParseAddr(word)
		if err == nil && p.holds(a, owner) {
			held = append(held, a)
		}
	}

	return held, true, nil
}
