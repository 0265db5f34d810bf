// Package ipam gives out addresses and keeps them in host-local's files, so that the upstream plugin and this
// one can take over each other's networks: DIR/ADDRESS holds "CONTAINER\r\nIFNAME", DIR/last_reserved_ip.SET
// the last address given out of a range set, DIR/lock is locked by flock(2). Beside them
// .by-id/CONTAINER:IFNAME, a symbolic link to the list of the container's addresses, finds them without
// reading every file, and .boot_id names the boot that the reservations belong to.
//
// A reservation is published whole (O_TMPFILE and linkat): kill -9 leaves none that is empty. The index is
// written first, as the intent.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

const (
	indexDir   = ".by-id"
	bootFile   = ".boot_id"
	lastPrefix = "last_reserved_ip."
	lockFile   = "lock"
)

// ErrExhausted means that every address of a range set is taken.
var ErrExhausted = errors.New("no address is free")

// Lease is an address given out, with the range that it is from.
type Lease struct {
	Address netip.Addr
	Range   Range
}

// Pool is the directory of one network. Several processes may use it at once.
type Pool struct{ dir string }

// Open opens DATADIR/NETWORK and creates it if need be. With bootScoped set, reservations of an earlier boot
// are void, since no container outlives a boot; they are dropped here.
func Open(dataDir, network string, bootScoped bool) (*Pool, error) {
	dir := filepath.Join(dataDir, network)
	if err := os.MkdirAll(filepath.Join(dir, indexDir), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of network %s: %w", network, err)
	}
	return open(dir, bootScoped)
}

// OpenIfThere is Open for a network of which there may be no directory: then the pool is nil.
func OpenIfThere(dataDir, network string, bootScoped bool) (*Pool, error) {
	dir := filepath.Join(dataDir, network)
	switch _, err := os.Stat(dir); {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for directory of network %s: %w", network, err)
	}
	return open(dir, bootScoped)
}

func open(dir string, bootScoped bool) (*Pool, error) {
	p := &Pool{dir: dir}
	if bootScoped {
		if err := p.dropEarlierBoot(); err != nil {
			return nil, fmt.Errorf("drop reservations of an earlier boot in %s: %w", p.dir, err)
		}
	}
	return p, nil
}

func (p *Pool) dropEarlierBoot() error {
	now, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}

	file := filepath.Join(p.dir, bootFile)
	if seen, err := os.ReadFile(file); err == nil && string(seen) == string(now) {
		return nil
	}

	return p.Locked(func() error {
		// Another process may have done it while this one waited for the lock.
		seen, err := os.ReadFile(file)
		if err == nil && string(seen) == string(now) {
			return nil
		}

		// Without a file it is not known which boot the reservations are of. They may be upstream's, for pods
		// that run: they stay.
		if err == nil {
			err = errors.Join(p.keep(func(Owner) bool { return false }), os.RemoveAll(p.PortsDir()))
			if err != nil {
				return err
			}
		}

		return durable.WriteVolatile(file, now, 0o644)
	})
}

// PortsDir is where package portrecord keeps the host ports of the network's containers, which end with the
// boot as reservations do.
func (p *Pool) PortsDir() string { return filepath.Join(p.dir, ".ports") }

// Locked runs f with host-local's lock held.
func (p *Pool) Locked(f func() error) error {
	file, err := os.OpenFile(filepath.Join(p.dir, lockFile), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}

	// closing unlocks
	defer func() { _ = file.Close() }()

	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}

	if err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}

	return f()
}

// Allocate gives owner one address of each set: the one in requested that lies in the set, else the next free
// one, round robin, so that an address rests as long as possible before it is used again. An owner that has
// addresses already is an error, as host-local has it. On an error nothing is kept.
func (p *Pool) Allocate(owner Owner, sets []Set, requested []netip.Addr) (leases []Lease, err error) {
	err = p.Locked(func() error {
		leases, err = p.allocate(owner, sets, requested)
		if err != nil && !errors.Is(err, errDuplicate) {
			err = errors.Join(err, p.release(owner))
		}
		return err
	})
	return leases, err
}

var errDuplicate = errors.New("address allocated already")

func (p *Pool) allocate(owner Owner, sets []Set, requested []netip.Addr) ([]Lease, error) {
	// reading all reservations here would make the thousandth pod slow
	held, _, err := p.indexed(owner)
	if err != nil {
		return nil, err
	}
	if len(held) > 0 {
		return nil, fmt.Errorf("%w to %s: %s", errDuplicate, owner, held[0])
	}

	used := make([]bool, len(requested))
	var leases []Lease
	for i, set := range sets {
		wanted, err := pick(set, requested, used)
		if err != nil {
			return nil, err
		}

		lease, err := p.reserve(owner, leases, i, set, wanted)
		if err != nil {
			return nil, err
		}

		leases = append(leases, lease)
	}

	for i, a := range requested {
		if !used[i] {
			return nil, fmt.Errorf("requested address %s is in no range of the network", a)
		}
	}

	return leases, nil
}

// pick returns the requested address that lies in set, or the zero address. The gateway is refused by name.
func pick(set Set, requested []netip.Addr, used []bool) (netip.Addr, error) {
	for i, a := range requested {
		for _, r := range set {
			if a == r.Gateway {
				return netip.Addr{}, fmt.Errorf("requested address %s is the gateway of subnet %s",
					a, r.Subnet)
			}
		}

		if _, in := set.find(a); in && !used[i] {
			used[i] = true
			return a, nil
		}
	}

	return netip.Addr{}, nil
}

// reserve publishes one address: the wanted one, or the first free one after the last given out.
func (p *Pool) reserve(
	owner Owner,
	before []Lease,
	number int,
	set Set,
	wanted netip.Addr,
) (lease Lease, err error) {
	publish := func(a netip.Addr, r Range) (bool, error) {
		if err := p.writeIndex(owner, append(before, Lease{Address: a})); err != nil {
			return false, err
		}

		ok, err := p.publish(a, owner)
		if ok {
			lease = Lease{Address: a, Range: r}
		}

		return ok, err
	}
	if wanted.IsValid() {
		r, _ := set.find(wanted)
		ok, err := publish(wanted, r)
		if err == nil && !ok {
			err = fmt.Errorf("requested address %s is taken", wanted)
		}

		return lease, err
	}

	last, _ := netip.ParseAddr(strings.TrimSpace(read(p.lastFile(number))))
	tried, ok := 0, false
	set.candidates(last, func(a netip.Addr, r Range) bool {
		// near a full pool: a look is cheaper than the index and a failed link
		if tried++; tried > 16 && p.taken(a) {
			return true
		}

		ok, err = publish(a, r)
		return !ok && err == nil
	})

	switch {
	case err != nil:
		return lease, err
	case !ok:
		return lease, fmt.Errorf("%w in %s (%d addresses)", ErrExhausted, set[0].Subnet, tried)
	}

	// A lost last_reserved_ip costs only the rest of an address, so a failure to write it is none.
	_ = overwrite(p.lastFile(number), lease.Address.String())
	return lease, nil
}

// overwrite writes a file in place. ext4 sends a file that was truncated to nothing to the disk when it is
// closed, and this one is written for each container.
func overwrite(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(content); err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}

func (p *Pool) lastFile(set int) string {
	return filepath.Join(p.dir, lastPrefix+strconv.Itoa(set))
}

// taken reports whether a reservation exists; an empty one (torn by a crash of another plugin) is none.
func (p *Pool) taken(a netip.Addr) bool { return read(p.file(a)) != "" }

func (p *Pool) file(a netip.Addr) string { return filepath.Join(p.dir, a.String()) }

func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}
