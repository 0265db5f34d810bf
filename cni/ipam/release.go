package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/internal/durable"
)

// Release releases what owner holds. Holding nothing is success.
func (p *Pool) Release(owner Owner) error {
	return p.Locked(func() error { return p.release(owner) })
}

func (p *Pool) release(owner Owner) error {
	held, err := p.find(owner)
	if err != nil {
		return err
	}

	for _, a := range held {
		if err := removeIfExists(p.file(a)); err != nil {
			return fmt.Errorf("release address %s: %w", a, err)
		}
	}

	for _, name := range []string{owner.index(), owner.formerIndex()} {
		if err := removeIfExists(filepath.Join(p.dir, indexDir, name)); err != nil {
			return fmt.Errorf("remove index of %s: %w", owner, err)
		}
	}

	return nil
}

// removeIfExists removes a file; none is success.
func removeIfExists(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Keep releases every reservation whose owner is not valid: CNI's GC.
func (p *Pool) Keep(valid func(Owner) bool) error {
	return p.Locked(func() error { return p.keep(valid) })
}

func (p *Pool) keep(valid func(Owner) bool) error {
	// The index entries of those who still hold something.
	due := map[string]bool{}
	err := p.eachReservation(func(a netip.Addr, content string) error {
		owner := parseOwner(content)
		if valid(owner) {
			due[owner.index()] = true
			return nil
		}

		return os.Remove(p.file(a))
	})

	// A directory that upstream's plugin made has no index.
	entries, listErr := os.ReadDir(filepath.Join(p.dir, indexDir))
	if !errors.Is(listErr, os.ErrNotExist) {
		err = errors.Join(err, listErr)
	}

	for _, e := range entries {
		if !due[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(p.dir, indexDir, e.Name())))
		}
	}

	return errors.Join(err, p.removeTemporary())
}

// removeTemporary removes what killed writers have left: of the file that names the boot and, on a file
// system without O_TMPFILE, of reservations. The lock is held, so that nobody is writing.
func (p *Pool) removeTemporary() error {
	left, err := filepath.Glob(filepath.Join(p.dir, temporary))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, durable.Sweep(filepath.Join(p.dir, bootFile)))
}

// names lists the file names in the directory.
func (p *Pool) names() ([]string, error) {
	dir, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return dir.Readdirnames(-1)
}

// eachReservation calls visit for every reservation that has an owner, and removes those that a crash of
// another plugin left empty. It continues after an error.
func (p *Pool) eachReservation(visit func(a netip.Addr, content string) error) error {
	names, err := p.names()
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

// Free counts the addresses of a set that are free, up to limit; reserved counts the reservations of the
// network.
func (p *Pool) Free(set Set, limit int) (free, reserved int, err error) {
	names, err := p.names()
	if err != nil {
		return 0, 0, err
	}

	named := make(map[netip.Addr]bool, len(names))
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			named[a] = true
		}
	}

	isNamed := func(a netip.Addr) bool { return named[a] }
	free = countFree(set, limit, isNamed)

	// Some of the files may be empty. Reading them all is for this case only.
	if free == 0 {
		free = countFree(set, limit, p.isTaken)
	}

	return free, len(named), nil
}

// countFree counts the addresses of a set that are not taken, up to limit.
func countFree(set Set, limit int, isTaken func(netip.Addr) bool) (free int) {
	set.eachAfter(netip.Addr{}, func(a netip.Addr, _ Range) bool {
		if !isTaken(a) {
			free++
		}
		return free < limit
	})
	return free
}
