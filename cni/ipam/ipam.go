// Package ipam allocates addresses and keeps them in the files of upstream's host-local, so that each of the
// two plugins can take over the other's networks: DIR/ADDRESS holds "CONTAINER\r\nIFNAME",
// DIR/last_reserved_ip.SET the last address allocated from a range set, DIR/lock is locked by flock(2).
// Beside them .by-id/CONTAINER:IFNAME, a symbolic link to the list of the container's addresses, finds them
// without reading every file, and .boot_id names the boot that the reservations belong to.
//
// A reservation appears whole (O_TMPFILE and linkat): kill -9 leaves none that is empty. The index is written
// first, as the intent.
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

	"github.com/trivet-node/trivet/internal/blocking"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/durable"
)

const (
	indexDir   = ".by-id"
	bootFile   = ".boot_id"
	lastPrefix = "last_reserved_ip."
	lockFile   = "lock"
)

// Location says where the pool of a network is.
type Location struct {
	// DataDir holds a directory for each network.
	DataDir string
	Network string
	// BootScoped makes the reservations of an earlier boot void, since no container outlives a boot. They are
	// dropped when the pool is opened.
	BootScoped bool
}

func (l Location) dir() string { return filepath.Join(l.DataDir, l.Network) }

// Pool is the directory of one network. Several processes may use it at once.
type Pool struct{ dir string }

// Create opens the pool of a network, and makes its directory if there is none.
func (l Location) Create() (*Pool, error) {
	if err := os.MkdirAll(filepath.Join(l.dir(), indexDir), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of network %s: %w", l.Network, err)
	}
	return l.open()
}

// Open opens the pool of a network; it returns nil when there is none.
func (l Location) Open() (*Pool, error) {
	_, err := os.Stat(l.dir())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for directory of network %s: %w", l.Network, err)
	}
	return l.open()
}

func (l Location) open() (*Pool, error) {
	p := &Pool{dir: l.dir()}
	if !l.BootScoped {
		return p, nil
	}
	if err := p.dropEarlierBoot(); err != nil {
		return nil, fmt.Errorf("drop reservations of an earlier boot in %s: %w", p.dir, err)
	}
	return p, nil
}

func (p *Pool) dropEarlierBoot() error {
	boot, err := bootid.Read()
	if err != nil {
		return err
	}

	line := boot + "\n"
	file := filepath.Join(p.dir, bootFile)
	if read(file) == line {
		return nil
	}

	return p.Locked(func() error {
		// Another process may have done it while this one waited for the lock.
		noted, err := os.ReadFile(file)
		if err == nil && string(noted) == line {
			return nil
		}

		// Without a file it is not known which boot the reservations are of: they may be upstream's, for
		// containers that run, and stay. One that is empty is what a power cut leaves.
		if err == nil {
			none := func(Owner) bool { return false }
			pods := filepath.Join(p.PolicyDir(), PodsDir)
			err := errors.Join(p.keep(none), os.RemoveAll(p.PortsDir()), os.RemoveAll(pods))
			if err != nil {
				return err
			}
		}

		return durable.WriteVolatile(file, []byte(line), 0o644)
	})
}

// PortsDir returns the directory where package hostport keeps the host ports of the network's containers,
// which end with the boot as reservations do.
func (p *Pool) PortsDir() string { return filepath.Join(p.dir, ".ports") }

// PolicyDir returns the directory where package hold keeps what concerns network policies.
func (p *Pool) PolicyDir() string { return filepath.Join(p.dir, ".policy") }

// PodsDir is the part of PolicyDir that ends with the boot.
const PodsDir = "pods"

// Locked calls f with host-local's lock held.
func (p *Pool) Locked(f func() error) error {
	file, err := blocking.Open(filepath.Join(p.dir, lockFile), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}

	// Closing unlocks.
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

func (p *Pool) lastFile(set int) string {
	return filepath.Join(p.dir, lastPrefix+strconv.Itoa(set))
}

func (p *Pool) file(a netip.Addr) string { return filepath.Join(p.dir, a.String()) }

// isTaken reports whether an address is reserved. An empty file, torn by a crash of another plugin, is not a
// reservation.
func (p *Pool) isTaken(a netip.Addr) bool { return read(p.file(a)) != "" }

func (p *Pool) holds(a netip.Addr, owner Owner) bool { return matches(read(p.file(a)), owner) }

// read returns the content of a file, or "" if there is none that can be read.
func read(path string) string {
	data, _ := blocking.ReadFile(path)
	return string(data)
}

// last returns the address of a range set that was allocated last, or the zero Addr.
func (p *Pool) last(set int) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimSpace(read(p.lastFile(set))))
	return a
}
