package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/blocking"
	"github.com/trivet-node/trivet/internal/durable"
)

// recordsDir has a file for each attachment. What they say ends with the boot. Tests and users without
// privileges have one of their own.
var recordsDir = "/run/cni/firewall"

// locked calls f while no other process reads or changes records and the rules that they stand for: an
// address may go from one container to another meanwhile.
func locked(f func() error) error {
	recordsDir = writable(recordsDir)
	if err := os.MkdirAll(recordsDir, 0o700); err != nil {
		return err
	}

	dir, err := os.Open(recordsDir)
	if err != nil {
		return err
	}

	// Closing unlocks.
	defer func() { _ = dir.Close() }()

	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}

	if err != nil {
		return fmt.Errorf("lock %s: %w", recordsDir, err)
	}

	return f()
}

// writable returns the directory or, for a user who may not write there, one of his own: he has a network
// namespace of his own as well.
func writable(dir string) string {
	own := os.Getenv("XDG_RUNTIME_DIR")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = unix.Access(dir, unix.W_OK)
	}
	if err == nil || own == "" {
		return dir
	}
	return filepath.Join(own, "cni", "firewall")
}

func fileOf(network string, o ipam.Owner) string {
	sum := sha256.Sum256([]byte(network + "\x00" + o.String()))
	return filepath.Join(recordsDir, hex.EncodeToString(sum[:16]))
}

func write(p Pod) error {
	data, err := json.Marshal(p)
	if err == nil {
		err = durable.WriteVolatile(fileOf(p.Network, p.Owner), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the addresses of %s: %w", p.Owner, err)
	}
	return nil
}

// read reads a record. What cannot be read says nothing.
func read(file string) (p Pod, ok bool) {
	data, err := blocking.ReadFile(file)
	if err != nil || json.Unmarshal(data, &p) != nil {
		return Pod{}, false
	}
	return p, true
}

// records lists those of a network.
func records(network string) ([]Pod, error) {
	return selected(func(p Pod) bool { return p.Network == network })
}

// claim takes the addresses of an attachment out of the records of others: an address is of the one that
// got it last. A record that nobody has removed, as when upstream's plugin deletes the container, says
// nothing then.
func claim(p Pod) error {
	others, err := selected(func(o Pod) bool { return o.Network != p.Network || o.Owner != p.Owner })
	for _, o := range others {
		isClaimed := func(a netip.Addr) bool { return slices.Contains(p.Addresses, a) }
		rest := slices.DeleteFunc(slices.Clone(o.Addresses), isClaimed)
		if len(rest) == len(o.Addresses) {
			continue
		}

		o.Addresses = rest
		if len(rest) == 0 {
			err = errors.Join(err, removeRecord(o))
		} else {
			err = errors.Join(err, write(o))
		}
	}

	return err
}

// othersAddresses returns the addresses on record of all attachments but one.
func othersAddresses(own Pod) (map[netip.Addr]bool, error) {
	others, err := selected(func(p Pod) bool { return p.Network != own.Network || p.Owner != own.Owner })
	addresses := map[netip.Addr]bool{}
	for _, p := range others {
		for _, a := range p.Addresses {
			addresses[a] = true
		}
	}
	return addresses, err
}

// selected lists the records for which keep is true. A file of another name than its content has is none:
// nothing would remove it.
func selected(keep func(Pod) bool) (all []Pod, err error) {
	entries, err := os.ReadDir(recordsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}

	for _, e := range entries {
		file := filepath.Join(recordsDir, e.Name())
		p, ok := read(file)
		if ok && file == fileOf(p.Network, p.Owner) && keep(p) {
			all = append(all, p)
		}
	}

	return all, err
}

// sweep removes what killed writers have left. With the lock held there are no others.
func sweep() error { return durable.SweepDir(recordsDir) }

func removeRecord(p Pod) error {
	err := os.Remove(fileOf(p.Network, p.Owner))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
