package doctor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Leaks says what attachments have left that have no interface any more: addresses, host ports and records.
// Somebody else's ports on the bridge may be those of a plugin that was here before, whose attachments cannot
// be told from ones that are gone: then it is a note.
func Leaks(kernel *rtnl.Conn, n *conf.Network) (found []Finding, err error) {
	location := n.IPAM.Pool
	location.BootScoped = false
	pool, err := location.Open()
	if err != nil || pool == nil {
		return nil, err
	}

	level, err := levelOfLeaks(kernel, n.Bridge)
	if err != nil {
		return nil, err
	}

	reservations, err := location.Reservations()
	alive := map[string]bool{}
	for _, r := range reservations {
		if bridge.IsAttached(kernel, n.Bridge.Network, r.Owner) {
			alive[r.Owner.Label()] = true
			continue
		}
		what := fmt.Sprintf("it is reserved for %s, which has no interface", r.Owner)
		found = append(found, left(level, "address "+r.Address.String(), what))
	}

	records, e := (hold.Network{Name: n.Bridge.Network, Pool: pool}).Records()
	err = errors.Join(err, e)
	for _, r := range records {
		if !bridge.IsAttached(kernel, n.Bridge.Network, r.Owner) {
			object := fmt.Sprintf("pod %s/%s", r.Namespace, r.Pod)
			what := fmt.Sprintf("it is on record for %s, which has no interface", r.Owner)
			found = append(found, left(level, object, what))
		}
	}

	owners, e := portOwners(n.NAT)
	for _, owner := range owners {
		if !alive[owner] {
			what := fmt.Sprintf("%s is published, and has no interface", owner)
			found = append(found, left(level, "host port", what))
		}
	}
	return found, errors.Join(err, e)
}

func left(level Level, object, what string) Finding {
	return Finding{
		Level:  level,
		Object: object,
		What:   what,
		Do:     "the runtime's DEL or GC of this attachment removes it",
	}
}

func levelOfLeaks(kernel *rtnl.Conn, c bridge.Config) (Level, error) {
	master, err := kernel.LinkByName(c.Name)
	if netlink.IsNotExist(err) {
		return Wrong, nil
	}
	if err != nil {
		return Wrong, err
	}
	links, err := kernel.Links()
	if slices.ContainsFunc(links, func(l rtnl.Link) bool {
		return l.Master == master.Index && !bridge.IsOwn(c.Network, l)
	}) {
		return Note, err
	}
	return Wrong, err
}

// portOwners returns the labels of attachments that have host ports.
func portOwners(c hostnat.Config) (all []string, err error) {
	table, err := hostnat.Open(c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = table.Close() }()
	return table.Owners()
}

// fewAddresses is the share of addresses that are free when a pool is nearly empty.
const fewAddresses = 0.05

// Pool says how many addresses are left.
func Pool(location ipam.Location, sets []ipam.Set) (found []Finding, err error) {
	uses, err := location.Uses(sets)
	for _, u := range uses {
		f := Finding{
			Level:  OK,
			Object: "addresses of " + u.Range.Subnet.String(),
			What:   fmt.Sprintf("%d of %.0f are taken", u.Taken, u.Total),
			Varies: true,
		}
		if left := u.Total - float64(u.Taken); left < max(1, fewAddresses*u.Total) {
			f.Level = Wrong
			f.Do = "give the node a larger pod CIDR, or fewer pods"
		}
		found = append(found, f)
	}
	return found, err
}
