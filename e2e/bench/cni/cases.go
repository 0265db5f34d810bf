package main

import (
	"strings"
	"time"
)

// testCase is one configuration in both dialects. In each, %q is the data directory and %s further keys of
// the address management.
type testCase struct {
	name string
	// upstream is "" for what is measured of trivet-cni alone.
	ours, upstream string
	// ports is how many host ports a pod has.
	ports int
	// floor is the name by which cni-floor sends the bare messages of netlink, "" for a case without it.
	floor string
	// byName has ours called by the names of upstream's plugins, with upstream's configuration.
	byName bool
	goals  goals
}

// title is that of the table which a case is in.
func (c testCase) title() string {
	if c.byName {
		return "By the names of upstream's plugins"
	}
	return "trivet-cni with hostRouted, lazyUnlink and sourceGuard"
}

// byNames is in the names of cases with byName.
const byNames = ", by upstream's names"

// Goals of several cases.
var (
	goalsBridge    = goals{upstream: [2]float64{3, 4}}
	goalsHostPorts = goals{upstream: [2]float64{15, 15}}
	goalsChained   = goals{upstream: [2]float64{2, 2}}
)

// withGoals is a case with goals.
func withGoals(g goals, c testCase) testCase {
	c.goals = g
	return c
}

// bootScoped is a further key of trivet-cni's: reservations end with the boot.
const bootScoped = `,"bootScoped":true`

// Keys and plugins of the configurations.
const (
	masqueradeOurs     = `"ipMasq":true,`
	masqueradeNFTables = `"ipMasq":true,"ipMasqBackend":"nftables",`
	masqueradeIPTables = `"ipMasq":true,"ipMasqBackend":"iptables",`
	hostPortsOurs      = `"capabilities":{"portMappings":true},`
	hostPortsNFTables  = `{"type":"portmap","backend":"nftables","capabilities":{"portMappings":true}}`
	limits             = `{"type":"bandwidth","ingressRate":8000000,"ingressBurst":8000000,
		"egressRate":8000000,"egressBurst":8000000}`
	firewall          = `{"type":"firewall","backend":"iptables"}`
	tuning            = `{"type":"tuning","mtu":1400}`
	hostPortsIPTables = `{"type":"portmap","backend":"iptables","capabilities":{"portMappings":true}}`
)

// What cni-floor is called as.
const (
	floorLazy   = "cni-floor"
	floorPorts  = "cni-floor-ports"
	floorDelete = "cni-floor-delete"
)

var cases = []testCase{
	{
		name:     "bridge + addresses",
		ours:     list(ours("")),
		upstream: list(bridge("")),
		floor:    floorLazy,
		goals:    goals{upstream: goalsBridge.upstream, bare: 1.2},
	},
	{
		name:     "with masquerade (upstream: nftables)",
		ours:     list(ours(masqueradeOurs)),
		upstream: list(bridge(masqueradeNFTables)),
	},
	{
		name:     "with masquerade and 2 host ports (upstream: nftables)",
		ours:     list(ours(masqueradeOurs + hostPortsOurs)),
		upstream: list(bridge(masqueradeNFTables), hostPortsNFTables),
		ports:    2,
		floor:    floorPorts,
		goals:    goalsHostPorts,
	},
	{
		name:     "with masquerade and 2 host ports (upstream: iptables)",
		ours:     list(ours(masqueradeOurs + hostPortsOurs)),
		upstream: list(bridge(masqueradeIPTables), hostPortsIPTables),
		ports:    2,
		goals:    goalsHostPorts,
	},
	{
		name:  "with masquerade and 100 host ports",
		ours:  list(ours(masqueradeOurs + hostPortsOurs)),
		ports: 100,
		goals: goals{add: 8 * time.Millisecond},
	},
	withGoals(goalsBridge, withFloor(unchanged("bridge", bridge("")))),
	withGoals(goalsChained, unchanged("ptp", ptp(""))),
	unchanged("bridge, masquerade, 2 host ports (nftables)", bridge(masqueradeNFTables), hostPortsNFTables),
	unchanged("bridge, masquerade, 2 host ports (iptables)", bridge(masqueradeIPTables), hostPortsIPTables),
	withGoals(goalsChained, unchanged("bridge, firewall (iptables)", bridge(""), firewall)),
	withGoals(goalsChained, unchanged("bridge, bandwidth", bridge(""), limits)),
	withGoals(goalsChained, unchanged("bridge, tuning", bridge(""), tuning)),
	withGoals(goalsChained, lazy("ptp", ptp)),
	withGoals(goalsChained, lazy("bridge, firewall (iptables)", bridge, firewall)),
	withGoals(goalsChained, lazy("bridge, bandwidth", bridge, limits)),
	withGoals(goalsChained, lazy("bridge, tuning", bridge, tuning)),
}

// unchanged is upstream's configuration on both sides.
func unchanged(name string, plugins ...string) testCase {
	l := list(plugins...)
	ports := 0
	if strings.Contains(l, "portmap") {
		ports = 2
	}
	return testCase{
		name:     name + byNames,
		ours:     l,
		upstream: l,
		ports:    ports,
		byName:   true,
	}
}

// withFloor has the bare messages measured beside a case, which wait until the interface is deleted.
func withFloor(c testCase) testCase {
	c.floor = floorDelete
	return c
}

// lazy is upstream's configuration with trivet-cni's key lazyUnlink in the main plugin, and without it on
// upstream's side.
func lazy(name string, main func(keys string) string, chained ...string) testCase {
	c := unchanged(name, append([]string{main("")}, chained...)...)
	c.name += ", with lazyUnlink"
	c.ours = list(append([]string{main(`"lazyUnlink":true,`)}, chained...)...)
	return c
}

// ptp is upstream's ptp plugin.
func ptp(keys string) string {
	return `{"type":"ptp",` + keys +
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.99.0.0/16"}]]%s}}`
}

// list is a network configuration list of these plugins.
func list(plugins ...string) string {
	return `{"cniVersion":"1.0.0","name":"bench","plugins":[` + strings.Join(plugins, ",") + `]}`
}

// ours is trivet-cni with further keys, each of them with a comma behind it. hostRouted, lazyUnlink and
// sourceGuard are as trivet-netd configures it.
func ours(keys string) string {
	return plugin("trivet-cni", `"hostRouted":true,"lazyUnlink":true,"sourceGuard":true,`+keys)
}

// bridge is upstream's bridge plugin.
func bridge(keys string) string { return plugin("bridge", keys) }

func plugin(name, keys string) string {
	return `{"type":"` + name + `","bridge":"bench0","isDefaultGateway":true,"hairpinMode":true,` + keys +
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.99.0.0/16"}]]%s}}`
}
