// Package hold keeps a pod that starts from sending and receiving until its network policies are in force.
//
// trivet-cni records the pod of each attachment. If the pod's namespace has policies, as far as trivet-netd
// has ever known, it puts the pod's addresses into a set whose packets are dropped, before the interface
// exists; trivet-netd takes them out when it has written the pod's rules. So it does not matter which of the
// two lives: without trivet-netd the pod waits.
//
//	DIR/.policy/pods/HASH       the pod of an attachment, until it ends
//	DIR/.policy/namespaces/NS   a namespace with policies, over a reboot as well
//	DIR/.policy/ended/ADDRESS   was a pod's, and connections of that may still be tracked
//	DIR/.policy/serving         is locked while trivet-netd looks after policies
//	table inet hold_NETWORK     the sets held4, held6 and the rules that drop
package hold

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
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/durable"
)

const (
	namespacesDir = "namespaces"
	servingFile   = "serving"
)

// Record is the pod of an attachment. It is JSON on the disk.
type Record struct {
	Owner     ipam.Owner   `json:"owner"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	// Boot is the boot that the record is of: no attachment outlives it.
	Boot string `json:"boot"`
}

// Network is where the pods of a network are recorded and held.
type Network struct {
	Name string
	Pool *ipam.Pool
}

func (n Network) dir(names ...string) string {
	return filepath.Join(append([]string{n.Pool.PolicyDir()}, names...)...)
}

func (n Network) file(owner ipam.Owner) string {
	sum := sha256.Sum256([]byte(owner.String()))
	return n.dir(ipam.PodsDir, hex.EncodeToString(sum[:16]))
}

// Begin records a pod, and holds its addresses if its namespace has policies; it reports whether they are
// held. The pod's interface must not exist yet.
func (n Network) Begin(r Record) (held bool, err error) {
	if r.Boot, err = bootid.Read(); err != nil {
		return false, err
	}

	// With the lock, neither GC nor the removal of the table comes between.
	err = n.Pool.Locked(func() error {
		if err := n.write(r); err != nil {
			return err
		}
		if held = n.hasPolicies(r.Namespace); held {
			if err := n.hold(r.Addresses); err != nil {
				return err
			}
		}
		return n.takeOver(r.Addresses)
	})
	return held, err
}

func (n Network) write(r Record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(n.dir(ipam.PodsDir), 0o755)
	}
	if err == nil {
		err = durable.WriteVolatile(n.file(r.Owner), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("record the pod of %s: %w", r.Owner, err)
	}
	return nil
}

// hasPolicies reports whether a namespace has policies, as far as trivet-netd has known. A name that cannot
// be one is not in the directory.
func (n Network) hasPolicies(namespace string) bool {
	if !durable.ValidName(namespace) {
		return false
	}
	_, err := os.Lstat(n.dir(namespacesDir, namespace))
	return !errors.Is(err, os.ErrNotExist)
}

// End forgets the pod of an attachment, if it has one. It was held only if it never got its interface, or
// trivet-netd has not come to it.
func (n Network) End(owner ipam.Owner) error {
	r, err := read(n.file(owner))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}

	// What cannot be read names no addresses that could be held.
	if err == nil {
		if err := errors.Join(n.Release(r.Addresses), n.leave(r.Addresses)); err != nil {
			return err
		}
	}
	if err := os.Remove(n.file(owner)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the record of the pod of %s: %w", owner, err)
	}
	return nil
}

// Settle lets the pods of some records go whose rules are written, and addresses of strays that no record is
// about. With the lock, no ADD gives one of the addresses to another pod meanwhile, which would be let go
// instead.
func (n Network) Settle(written []Record, strays []netip.Addr) error {
	return n.Pool.Locked(func() error {
		all, err := n.Records()
		if err != nil {
			return err
		}

		there := map[ipam.Owner]bool{}
		recorded := map[netip.Addr]bool{}
		for _, r := range all {
			there[r.Owner] = true
			for _, a := range r.Addresses {
				recorded[a] = true
			}
		}

		due := slices.DeleteFunc(slices.Clone(strays), func(a netip.Addr) bool { return recorded[a] })
		for _, r := range written {
			if there[r.Owner] {
				due = append(due, r.Addresses...)
			}
		}
		return n.Release(due)
	})
}

// Keep forgets the pods of all but valid attachments, and removes what killed writers have left: CNI's GC.
func (n Network) Keep(valid func(ipam.Owner) bool) error {
	return n.Pool.Locked(func() error {
		// With the lock held there are no other writers.
		swept := durable.SweepDir(n.dir(ipam.PodsDir))
		all, err := n.Records()
		err = errors.Join(swept, err)
		for _, r := range all {
			if !valid(r.Owner) {
				err = errors.Join(err, n.End(r.Owner))
			}
		}
		return err
	})
}

// Records lists the pods on record, those of an earlier boot too. What cannot be read is left out: it names
// no pod.
func (n Network) Records() (all []Record, err error) {
	entries, err := os.ReadDir(n.dir(ipam.PodsDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}

	for _, e := range entries {
		path := n.dir(ipam.PodsDir, e.Name())
		if r, err := read(path); err == nil && n.file(r.Owner) == path {
			all = append(all, r)
		}
	}
	return all, err
}

func read(path string) (r Record, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// patience is how long the start of a pod waits for its rules. Later they come while it runs.
const patience = 2 * time.Second
