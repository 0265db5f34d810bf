package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/netd/policies"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
)

// pass compares and writes. One goroutine makes all of them.
type pass struct {
	*Enforcer
	host    *rtnl.Conn
	network hold.Network
	boot    string
}

// make makes a pass, and returns after how long the next one follows without any event.
func (p pass) make(ctx context.Context) time.Duration {
	began := time.Now()
	var r Report
	r.Err = p.enforce(&r)
	r.Took = time.Since(began)
	if ctx.Err() != nil {
		return 0
	}

	p.put(r)
	if r.Err != nil {
		return p.backoff.Next()
	}
	p.backoff.Reset()
	return recheck
}

// enforce makes the kernel have what the policies say, and lets the pods go that waited for it.
func (p pass) enforce(r *Report) error {
	subnets, forgotten := p.take()
	if forgotten {
		p.filter.Forget()
	}

	began := time.Now()
	v, err := p.look()
	if err != nil {
		return err
	}
	local, cluster, state := v.local, v.cluster, v.state
	r.Policies = len(cluster.Policies)
	r.Problems = state.Problems
	r.Isolated = countIsolated(cluster.Pods, state)
	r.Compiled = time.Since(began)

	// From here on pods of these namespaces are held; a pod that is being added now was so before, or its
	// namespace had no policies that anybody knew of. Rules follow even if that cannot be recorded, since it
	// is of pods to come.
	announced := p.network.Announce(state.Namespaces)
	if len(subnets) == 0 && !state.IsEmpty() {
		return errors.Join(announced, ErrNoSubnets)
	}

	var link filter.Bridge
	if !state.IsEmpty() {
		link, err = p.bridge(subnets, local.records)
	}
	if err == nil {
		r.Changed, err = p.filter.Apply(state, link)
	}
	if err := errors.Join(announced, err); err != nil {
		return err
	}
	if p.filter.LacksFrames() {
		r.Lacks = "the kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE): " +
			"a pod with CAP_NET_RAW can send frames to its neighbours past network policies"
	}

	if err := p.release(local, cluster.Pods, state); err != nil {
		return err
	}
	return errors.Join(p.network.Tidy(), p.clear())
}

// view is what there is at the beginning of a pass, and what the kernel is to have for it.
type view struct {
	local   local
	cluster policy.Cluster
	state   *policy.State
}

// look reads the node and the cluster, and compiles. Half a list is an error: what is in the kernel stays in
// force.
func (p pass) look() (v view, err error) {
	if err := p.source.Waiting(); err != nil {
		return v, fmt.Errorf("network policies: %w", err)
	}
	if v.local, err = p.findLocal(); err != nil {
		return v, err
	}

	v.cluster = policy.Cluster{
		Policies:   p.source.Policies(),
		Pods:       join(p.source.Pods(), v.local.records, p.cfg.NodeName),
		Namespaces: p.source.Namespaces(),
	}
	v.state = p.compiler.Compile(v.cluster)
	return v, nil
}

// clear forgets the connections of pods that have ended, of many at once.
func (p pass) clear() error {
	if time.Since(p.cleared) < recheck/2 {
		return nil
	}
	p.cleared = time.Now()
	return p.network.Clear()
}

// local is what is known on the node itself of its pods.
type local struct {
	// held are addresses that wait for their rules.
	held []netip.Addr
	// records are those of attachments that have their interface, or are about to get it.
	records []hold.Record
}

// findLocal reads the plugin's records.
func (p pass) findLocal() (l local, err error) {
	// What is held was recorded before, so that the other order would miss a record.
	if l.held, err = p.network.Held(); err != nil {
		return l, err
	}
	all, err := p.network.Records()
	if err != nil {
		return l, err
	}

	// Those of an earlier boot stay until the plugin is called.
	for _, r := range all {
		if r.Boot == p.boot {
			l.records = append(l.records, r)
		}
	}
	return l, nil
}

// join returns the pods of the cluster, those of this node with the addresses that they have here: the API
// learns of them only later.
func join(all []policies.Pod, records []hold.Record, node string) []*policy.Pod {
	type name struct{ namespace, pod string }
	byName := map[name]*policies.Pod{}
	for i := range all {
		byName[name{all[i].Namespace, all[i].Name}] = &all[i]
	}

	var first, rest []*policy.Pod
	recorded := map[*policies.Pod]bool{}
	for _, r := range records {
		known := byName[name{r.Namespace, r.Pod}]
		if known == nil || !known.Is(r.Namespace, r.Pod, r.UID) {
			first = append(first, &policy.Pod{
				Namespace: r.Namespace,
				Name:      r.Pod,
				Addresses: r.Addresses,
				Local:     true,
				Unknown:   true,
			})
			continue
		}

		if !recorded[known] {
			recorded[known] = true
			known.Addresses = nil
			known.Local = true
			first = append(first, &known.Pod)
		}
		known.Addresses = append(known.Addresses, r.Addresses...)
	}

	for i := range all {
		if !recorded[&all[i]] {
			all[i].Local = all[i].Node == node
			rest = append(rest, &all[i].Pod)
		}
	}

	return append(inOrder(first), inOrder(rest)...)
}

// countIsolated counts the pods of this node that have a profile.
func countIsolated(pods []*policy.Pod, s *policy.State) (count int) {
	isIsolated := func(a netip.Addr) bool { return s.Numbers[0][a]+s.Numbers[1][a] > 0 }
	for _, pod := range pods {
		if pod.Local && slices.ContainsFunc(pod.Addresses, isIsolated) {
			count++
		}
	}
	return count
}

// bridge returns the bridge whose frames have to be brought before the rules. Where br_netfilter calls them
// for bridged frames, that is not needed, and would break what it translates while it bridges.
func (p pass) bridge(subnets []netip.Prefix, records []hold.Record) (b filter.Bridge, err error) {
	link, err := p.host.LinkByName(p.cfg.Bridge)
	if netlink.IsNotExist(err) {
		return b, nil
	}
	if err != nil {
		return b, err
	}

	b.MAC = link.MAC
	b.Ports = map[string][]netip.Addr{}
	for _, r := range records {
		b.Ports[bridge.HostName(p.network.Name, r.Owner)] = r.Addresses
	}
	if err := p.findOthers(link, &b); err != nil {
		return b, err
	}

	for _, s := range subnets {
		name := "net/bridge/bridge-nf-call-iptables"
		if s.Addr().Is6() {
			name = "net/bridge/bridge-nf-call-ip6tables"
		}
		if sysctl.Get(name) != "1" {
			b.Subnets = append(b.Subnets, s)
		}
	}
	return b, nil
}

// findOthers adds the ports of pods that are not on record. While links come and go all the time, those of
// the last pass count.
func (p pass) findOthers(of rtnl.Link, b *filter.Bridge) error {
	links, err := p.host.Links()
	if err != nil && !errors.Is(err, netlink.ErrChanging) {
		return err
	}
	if err == nil {
		p.others = nil
		for _, l := range links {
			isOfPod := l.Master == of.Index && l.Kind == rtnl.KindVeth
			if _, known := b.Ports[l.Name]; isOfPod && !known {
				p.others = append(p.others, l.Name)
			}
		}
	}
	b.Others = p.others
	return nil
}

// release lets go the pods whose rules are written, and addresses that no record is about. A pod that is not
// in the list of the API yet waits.
func (p pass) release(l local, pods []*policy.Pod, s *policy.State) error {
	if len(l.held) == 0 {
		return nil
	}

	unknown := map[netip.Addr]bool{}
	for _, pod := range pods {
		for _, a := range pod.Addresses {
			unknown[a] = unknown[a] || pod.Unknown && s.Namespaces[pod.Namespace]
		}
	}

	var written []hold.Record
	strays := slices.Clone(l.held)
	for _, r := range l.records {
		isHeld := func(a netip.Addr) bool { return slices.Contains(l.held, a) }
		isUnknown := func(a netip.Addr) bool { return unknown[a] }
		if slices.ContainsFunc(r.Addresses, isHeld) && !slices.ContainsFunc(r.Addresses, isUnknown) {
			written = append(written, r)
		}
		isRecorded := func(a netip.Addr) bool { return slices.Contains(r.Addresses, a) }
		strays = slices.DeleteFunc(strays, isRecorded)
	}
	if len(written)+len(strays) == 0 {
		return nil
	}

	if err := p.network.Settle(written, strays); err != nil {
		return fmt.Errorf("let pods go whose network policies are in force: %w", err)
	}
	return nil
}

func inOrder(all []*policy.Pod) []*policy.Pod {
	slices.SortStableFunc(all, policy.ComparePods)
	return all
}
