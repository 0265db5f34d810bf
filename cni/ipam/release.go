package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// writeIndex notes which addresses owner has or is about to take. Replacing a link is two steps; in between
// the reservations themselves still tell.
func (p *Pool) writeIndex(owner Owner, leases []Lease) error {
	words := make([]string, len(leases))
	for i, l := range leases {
		words[i] = l.Address.String()
	}

	path := filepath.Join(p.dir, indexDir, owner.index())
	err := os.Symlink(strings.Join(words, " "), path)
	if errors.Is(err, os.ErrExist) {
		if err = os.Remove(path); err == nil {
			err = os.Symlink(strings.Join(words, " "), path)
		}
	}

	if err != nil {
		return fmt.Errorf("note addresses of %s: %w", owner, err)
	}

	return nil
}

// Find returns the addresses that owner holds, those of a reservation made by upstream's host-local too.
func (p *Pool) Find(owner Owner) (held []netip.Addr, err error) {
	err = p.Locked(func() error {
		held, err = p.find(owner)
		return err
	})
	return held, err
}

// find uses the index, and reads all reservations when the owner is not in it: another plugin may have made
// them.
func (p *Pool) find(owner Owner) ([]netip.Addr, error) {
	held, known, err := p.indexed(owner)
	if known || err != nil {
		return held, err
	}
	err = p.each(func(a netip.Addr, content string) error {
		if matches(content, owner) {
			held = append(held, a)
		}
		return nil
	})
	return held, err
}

// indexed returns what the index says that owner holds, less what it does not hold any more. known is false
// for an owner without entry.
func (p *Pool) indexed(owner Owner) (held []netip.Addr, known bool, err error) {
	list, err := os.Readlink(filepath.Join(p.dir, indexDir, owner.index()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up addresses of %s: %w", owner, err)
	}

	for _, word := range strings.Fields(list) {
		if a, err := netip.ParseAddr(word); err == nil && p.holds(a, owner) {
			held = append(held, a)
		}
	}

	return held, true, nil
}

func (p *Pool) holds(a netip.Addr, owner Owner) bool { return matches(read(p.file(a)), owner) }

// Release gives back what owner holds. Holding nothing is success.
func (p *Pool) Release(owner Owner) error {
	return p.Locked(func() error { return p.release(owner) })
}

func (p *Pool) release(owner Owner) error {
	held, err := p.find(owner)
	if err != nil {
		return err
	}

	for _, a := range held {
		if err := os.Remove(p.file(a)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("release address %s: %w", a, err)
		}
	}

	for _, name := range []string{owner.index(), owner.formerIndex()} {
		err := os.Remove(filepath.Join(p.dir, indexDir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget addresses of %s: %w", owner, err)
		}
	}

	return nil
}

// Keep releases every reservation whose owner is not valid: CNI's GC.
func (p *Pool) Keep(valid func(Owner) bool) error {
	return p.Locked(func() error { return p.keep(valid) })
}

func (p *Pool) keep(valid func(Owner) bool) error {
	// index entries of those who hold something
	due := map[string]bool{}
	err := p.each(func(a netip.Addr, content string) error {
		owner := parseOwner(content)
		if valid(owner) {
			due[owner.index()] = true
			return nil
		}

		return os.Remove(p.file(a))
	})

	entries, listErr := os.ReadDir(filepath.Join(p.dir, indexDir))
	if errors.Is(listErr, os.ErrNotExist) {
		// a directory that upstream's plugin made
		listErr = nil
	}

	err = errors.Join(err, listErr)
	for _, e := range entries {
		if !due[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(p.dir, indexDir, e.Name())))
		}
	}

	return errors.Join(err, p.removeTemporary())
}

// removeTemporary removes what a killed writer left on a file system without O_TMPFILE.
func (p *Pool) removeTemporary() error {
	left, err := filepath.Glob(filepath.Join(p.dir, temporary))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// reservations lists the file names in the directory.
func (p *Pool) reservations() ([]string, error) {
	dir, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return dir.Readdirnames(-1)
}

// each calls visit for every reservation that has an owner, and removes those that a crash of another plugin
// left empty.
func (p *Pool) each(visit func(a netip.Addr, content string) error) error {
	names, err := p.reservations()
	for _, name := range names {
		a, notAddress := netip.ParseAddr(name)
		if notAddress != nil {
			continue
		}

		content := read(p.file(a))
		if strings.TrimSpace(content) == "" {
			err = errors.Join(err, os.Remove(p.file(a)))
			continue
		}

		err = errors.Join(err, visit(a, content))
	}

	return err
}

// Free counts the addresses of a set that nobody holds, but not beyond limit; held is how many reservations
// the network has.
func (p *Pool) Free(set Set, limit int) (free, held int, err error) {
	names, err := p.reservations()
	if err != nil {
		return 0, 0, err
	}

	named := make(map[netip.Addr]bool, len(names))
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			named[a] = true
		}
	}

	count := func(taken func(netip.Addr) bool) {
		set.candidates(netip.Addr{}, func(a netip.Addr, _ Range) bool {
			if !taken(a) {
				free++
			}

			return free < limit
		})
	}

	count(func(a netip.Addr) bool { return named[a] })

	// some of the files may be empty; reading them all is for this case only
	if free == 0 {
		count(p.taken)
	}

	return free, len(named), nil
}
