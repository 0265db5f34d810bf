// Package hostport publishes the host ports of attachments. In nftables they are elements of the network's
// table (package hostnat), and lost when somebody flushes it, so they are on record beside the network's
// reservations: trivet-netd restores them from there.
//
// A record is written before the elements, and says what they are until they are gone: DEL removes them with
// the lock of the network's pool held, and the record has ended then. A process that finds one that has not
// while it holds the lock may add its elements. The tracked connections go next, for which there is no lock,
// and the record last, so that a DEL that was killed is repeated in full.
package hostport

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/listener"
	"github.com/trivet-node/trivet/cni/portmap"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/sysctl"
)

// Network is where the host ports of one network are.
type Network struct {
	// NAT describes the table. To withdraw and to collect, its Network is enough.
	NAT hostnat.Config
	// Pool has the records beside it. It is nil for a network without IPAM, which has no host ports.
	Pool *ipam.Pool
}

// Pair returns the host ports for the addresses of a pod: each wanted port with the first address of either
// family, or of the family of its host address.
func Pair(wanted []conf.Port, addresses []netip.Addr) []hostnat.Port {
	firsts := firstOfEachFamily(addresses)
	var all []hostnat.Port
	for _, w := range wanted {
		for _, pod := range firsts {
			if w.HostIP.IsValid() && !prefix.SameFamily(w.HostIP, pod) {
				continue
			}

			p := hostnat.Port{
				HostPort: w.HostPort,
				Protocol: w.Protocol,
				Pod:      netip.AddrPortFrom(pod, w.ContainerPort),
			}
			if !w.HostIP.IsUnspecified() {
				p.HostIP = w.HostIP
			}

			all = append(all, p)
		}
	}

	return all
}

func firstOfEachFamily(addresses []netip.Addr) (firsts []netip.Addr) {
	for _, a := range addresses {
		if len(firsts) == 0 || len(firsts) == 1 && !prefix.SameFamily(firsts[0], a) {
			firsts = append(firsts, a)
		}
	}
	return firsts
}

// Publish makes the rules of the network match its configuration and publishes the host ports of owner, of
// which there may be none. A port that another owner has is an error that names it. After an error,
// Withdraw removes what is left.
func (n Network) Publish(owner ipam.Owner, ports []hostnat.Port) error {
	return n.withTable(func(t *hostnat.Table) error {
		if err := t.Ensure(); err != nil || len(ports) == 0 {
			return err
		}
		if err := t.TakenElsewhere(owner.Label(), ports); err != nil {
			return err
		}
		if err := portmap.Taken(owner.ContainerID, ports); err != nil {
			return err
		}

		// Host ports on 127.0.0.1 need this. It also lets pods send to the host's 127.0.0.1: the rules that
		// drop that are there now.
		if n.NAT.SNAT {
			name := "net/ipv4/conf/" + n.NAT.Bridge + "/route_localnet"
			if err := sysctl.EnsureIfPresent(name, "1"); err != nil {
				return err
			}
		}

		// Nothing else names the ports of an ADD that no DEL has followed.
		if n.isRecorded(owner) {
			if err := n.withdrawRecorded(t, owner, nil); err != nil {
				return err
			}
		}

		// Without the lock, GC would take a record that is being written for what a killed ADD left.
		s := storeOf(n.Pool)
		err := n.Pool.Locked(func() error { return s.write(record{Owner: owner, Ports: ports}) })
		if err != nil {
			return err
		}

		return t.AddPorts(owner.Label(), ports)
	})
}

// isRecorded reports whether there is a record of an attachment.
func (n Network) isRecorded(owner ipam.Owner) bool {
	s := storeOf(n.Pool)
	return s.has(owner) || s.ended().has(owner)
}

// Refuse returns an error that names the first of some host ports that a process of the host listens on. It
// is for pods of Kubernetes: other runtimes listen themselves on the host ports of their containers, so that
// nobody else does, some of them before ADD.
func Refuse(ports []hostnat.Port) error { return listener.Refuse(listenedOn(ports)) }

// listenedOn returns the sockets of the host that would lose their packets to host ports.
func listenedOn(ports []hostnat.Port) (sockets []listener.Port) {
	for _, p := range ports {
		address := p.HostIP
		if !address.IsValid() {
			address = unspecified(p.Pod.Addr())
		}
		sockets = append(sockets, listener.Port{
			Protocol: p.Protocol,
			Address:  netip.AddrPortFrom(address, p.HostPort),
		})
	}
	return sockets
}

// unspecified returns the unspecified address of the family of a.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Withdraw removes the host ports of owner, and those that lead to addresses that it holds. None is success.
// The ports are free when it returns; the table that it returns is to be closed later, for that waits until
// the kernel has freed their elements. It is nil after an error.
func (n Network) Withdraw(owner ipam.Owner, held []netip.Addr) (*hostnat.Table, error) {
	t, err := hostnat.Open(n.NAT)
	if err != nil {
		return nil, err
	}
	if err := n.withdraw(t, owner, held); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// withdraw takes as long with a thousand pods as with one, as long as the pool knows of the attachment.
func (n Network) withdraw(t *hostnat.Table, owner ipam.Owner, held []netip.Addr) error {
	if n.Pool != nil && n.isRecorded(owner) {
		return n.withdrawRecorded(t, owner, held)
	}

	// Most pods have no host ports. One that has, and no record, was there before the pool's directory was
	// lost, or its record could not be read by a GC that was killed.
	if n.Pool != nil && len(held) > 0 {
		if found, err := t.LeadsTo(held); err != nil || !found {
			return err
		}
	}

	gone, err := t.Remove(owner.Label(), held)
	return errors.Join(err, t.ForgetUDP(gone))
}

// withdrawRecorded removes the host ports that are on record, and the record. With the lock, nobody adds them
// again in between.
func (n Network) withdrawRecorded(t *hostnat.Table, owner ipam.Owner, held []netip.Addr) error {
	var due []hostnat.Port
	err := n.Pool.Locked(func() (err error) {
		due, err = n.end(t, owner, held)
		return err
	})
	if err != nil {
		return err
	}

	// There may be a million connections to look through, which is too long to hold the lock.
	if err := t.ForgetUDP(due); err != nil {
		return err
	}
	return storeOf(n.Pool).ended().remove(owner)
}

// end removes the elements of an attachment, and ends its record. It returns the ports whose connections are
// due: also those of elements that a process has removed which was killed then.
func (n Network) end(t *hostnat.Table, owner ipam.Owner, held []netip.Addr) (due []hostnat.Port, err error) {
	s := storeOf(n.Pool)
	r, ok := s.read(owner)
	if ok {
		due, err = t.RemovePorts(owner.Label(), r.Ports, held)
	} else {
		due, err = t.Remove(owner.Label(), held)
	}
	if err != nil {
		return nil, err
	}

	isUDP := func(p hostnat.Port) bool { return p.Protocol == "udp" }
	if ok && len(due) == 0 && !slices.ContainsFunc(r.Ports, isUDP) {
		return nil, s.remove(owner)
	}

	if err := s.end(owner); err != nil {
		return nil, err
	}
	ended, _ := s.ended().read(owner)
	return append(due, ended.Ports...), nil
}

// Keep removes the host ports of all but valid attachments: CNI's GC. It continues after an error.
func (n Network) Keep(valid *conf.Attachments) error {
	var records error
	if n.Pool != nil {
		records = n.Pool.Locked(func() error { return storeOf(n.Pool).keep(valid.Has) })
	}
	elements := n.withTable(func(t *hostnat.Table) error {
		gone, err := t.Keep(valid.HasLabel)
		if err != nil || n.Pool == nil {
			return errors.Join(err, t.ForgetUDP(gone))
		}
		return n.forgetEnded(t, valid, gone)
	})
	return errors.Join(records, elements)
}

// forgetEnded forgets the connections to some host ports that are gone, and to those of all but valid
// attachments whose records have ended, and removes these.
func (n Network) forgetEnded(t *hostnat.Table, valid *conf.Attachments, gone []hostnat.Port) error {
	s := storeOf(n.Pool).ended()
	ended, err := s.all()
	ended = slices.DeleteFunc(ended, func(r record) bool { return valid.Has(r.Owner) })
	for _, r := range ended {
		gone = append(gone, r.Ports...)
	}
	if err := errors.Join(err, t.ForgetUDP(gone)); err != nil {
		return err
	}

	for _, r := range ended {
		err = errors.Join(err, s.remove(r.Owner))
	}
	return err
}

// Check returns an error that names what is missing of the network's rules and of some host ports.
func (n Network) Check(ports []hostnat.Port) error {
	return n.withTable(func(t *hostnat.Table) error {
		if err := t.Check(); err != nil {
			return err
		}
		return t.HasPorts(ports)
	})
}

// Usable returns an error when nftables cannot be used, and says whether the network has its rules.
func (n Network) Usable() (hasRules bool, err error) {
	err = n.withTable(func(t *hostnat.Table) error {
		hasRules, err = t.Usable()
		return err
	})
	return hasRules, err
}

// Prepare writes the rules of the network, without any host port.
func (n Network) Prepare() error { return n.withTable((*hostnat.Table).Ensure) }

// Restore writes the rules of the network again if some are missing, and publishes the recorded host ports
// that are not in the table. A record of an attachment that ended without DEL stays until GC: isRunning says
// which attachments still have their interface.
func (n Network) Restore(isRunning func(ipam.Owner) bool) (rules, ports bool, err error) {
	err = n.withTable(func(t *hostnat.Table) (err error) {
		if rules, err = t.Repair(); err != nil || n.Pool == nil {
			return err
		}
		ports, err = n.restorePorts(t, isRunning)
		return err
	})
	return rules, ports, err
}

func (n Network) restorePorts(t *hostnat.Table, isRunning func(ipam.Owner) bool) (restored bool, err error) {
	records, err := storeOf(n.Pool).all()
	if err != nil {
		return false, err
	}

	var running []record
	var ports []hostnat.Port
	for _, r := range records {
		if isRunning(r.Owner) {
			running = append(running, r)
			ports = append(ports, r.Ports...)
		}
	}

	if len(ports) == 0 || t.HasPorts(ports) == nil {
		return false, nil
	}

	var errs []error
	for _, r := range running {
		errs = append(errs, n.Pool.Locked(func() error {
			// A DEL may have ended it since it was read.
			if !storeOf(n.Pool).has(r.Owner) {
				return nil
			}

			return t.AddPorts(r.Owner.Label(), r.Ports)
		}))
	}

	err = errors.Join(errs...)
	return err == nil, err
}

func (n Network) withTable(f func(*hostnat.Table) error) error {
	t, err := hostnat.Open(n.NAT)
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.Close())
}
