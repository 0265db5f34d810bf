package cnisuite

import (
	"fmt"
	"os/exec"
	"strings"
)

// network is a configuration of the corpus; %s is the data directory.
type network struct {
	name, plugins string
	// version is that of the configuration; "" for 1.0.0.
	version string
	// needs is a kind of interface, with its options, that the kernel has to have; "" for none.
	needs string
	// hasStolenRoutes is for sbr, which takes routes away that CHECK of the main plugin looks for.
	hasStolenRoutes bool
	// theirs are the plugins of upstream's that are in one chain with ours; nil for those of one program.
	theirs []string
	// master is whether the host has the interface eth1 for the main plugin.
	master bool
}

const (
	hostLocal = `"ipam":{"type":"host-local","dataDir":"%s","ranges":[[{"subnet":"10.85.0.0/24"}],
		[{"subnet":"fd85::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}`
	static = `"ipam":{"type":"static","addresses":[{"address":"10.85.0.9/24","gateway":"10.85.0.1"},
		{"address":"fd85::9/64","gateway":"fd85::1"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24"}]}`
	bridgeAlone = `"type":"bridge","bridge":"br0","isGateway":true`
	bridge      = bridgeAlone + `,` + hostLocal
	ptp         = `"type":"ptp",` + hostLocal
	ports       = `"type":"portmap","capabilities":{"portMappings":true}`
	tuning      = `"type":"tuning","mtu":1300,"mac":"02:00:00:00:00:42"`
	firewall    = `{"type":"firewall","backend":"iptables"}`
	bandwidth   = `"type":"bandwidth","ingressRate":8000000,"ingressBurst":8000000,
		"egressRate":8000000,"egressBurst":8000000`
)

// corpus are the configurations that both programs have to take.
var corpus = []network{
	{name: "bridge", plugins: `{` + bridge + `}`},
	{name: "bridge of version 0.4.0", version: "0.4.0", plugins: `{` + bridge + `},{` + ports + `}`},
	{name: "bridge of version 0.3.1", version: "0.3.1", plugins: `{` + bridge + `},{` + ports + `}`},
	{name: "bridge, static", plugins: `{` + bridgeAlone + `,` + static + `}`},
	{
		name: "bridge, default gateway",
		plugins: `{"type":"bridge","bridge":"br0","isDefaultGateway":true,"ipam":{"type":"host-local",
			"dataDir":"%s","ranges":[[{"subnet":"10.85.0.0/24"}],[{"subnet":"fd85::/64"}]]}}`,
	},
	{name: "bridge, hairpin", plugins: `{` + bridge + `,"hairpinMode":true},{` + ports + `}`},
	{name: "bridge, promiscuous", plugins: `{` + bridge + `,"promiscMode":true}`},
	{name: "bridge, isolated ports", plugins: `{` + bridge + `,"portIsolation":true}`},
	{name: "bridge, MTU", plugins: `{` + bridge + `,"mtu":1400}`},
	{
		name:    "bridge, VLAN",
		needs:   "bridge vlan_filtering 1",
		plugins: `{"type":"bridge","bridge":"br0","vlan":100,` + hostLocal + `}`,
	},
	{
		name:    "bridge, masquerade by nftables",
		plugins: `{` + bridge + `,"ipMasq":true,"ipMasqBackend":"nftables"}`,
	},
	{
		name:    "bridge, masquerade by iptables",
		plugins: `{` + bridge + `,"ipMasq":true,"ipMasqBackend":"iptables"}`,
	},
	{name: "bridge, masquerade", plugins: `{` + bridge + `,"ipMasq":true}`},
	{name: "bridge, macspoofchk", plugins: `{` + bridge + `,"macspoofchk":true}`},
	{name: "ptp", plugins: `{` + ptp + `}`},
	{name: "ptp, static", plugins: `{"type":"ptp",` + static + `}`},
	{name: "ptp, masquerade by nftables", plugins: `{` + ptp + `,"ipMasq":true,"ipMasqBackend":"nftables"}`},
	{name: "ptp, masquerade by iptables", plugins: `{` + ptp + `,"ipMasq":true,"ipMasqBackend":"iptables"}`},
	{name: "bridge, portmap by nftables", plugins: `{` + bridge + `},{` + ports + `,"backend":"nftables"}`},
	{name: "bridge, portmap by iptables", plugins: `{` + bridge + `},{` + ports + `,"backend":"iptables"}`},
	{name: "ptp, portmap", plugins: `{` + ptp + `,"ipMasq":true},{` + ports + `}`},
	{
		name: "portmap, conditions of iptables",
		plugins: `{` + bridge + `},{` + ports + `,"backend":"iptables",
			"conditionsV4":["!","-s","192.0.2.77"]}`,
	},
	{
		name: "portmap, conditions of nftables",
		plugins: `{` + bridge + `},{` + ports + `,"backend":"nftables",
			"conditionsV4":["ip","saddr","!=","192.0.2.77"]}`,
	},
	{
		name:    "portmap, all masqueraded",
		plugins: `{` + bridge + `},{` + ports + `,"backend":"nftables","masqAll":true}`,
	},
	{
		name:    "portmap without snat",
		plugins: `{` + bridge + `},{` + ports + `,"backend":"iptables","snat":false}`,
	},
	{name: "bridge, firewall by iptables", plugins: `{` + bridge + `},` + firewall},
	{
		name:    "firewall, same bridge",
		plugins: `{` + bridge + `},{"type":"firewall","backend":"iptables","ingressPolicy":"same-bridge"}`,
	},
	{
		name:    "firewall, isolated",
		plugins: `{` + bridge + `},{"type":"firewall","backend":"iptables","ingressPolicy":"isolated"}`,
	},
	{name: "bridge, bandwidth", plugins: `{` + bridge + `},{` + bandwidth + `}`},
	{name: "bridge, tuning", plugins: `{` + bridge + `},{` + tuning + `}`},
	{name: "bridge, sbr", hasStolenRoutes: true, plugins: `{` + bridge + `},{"type":"sbr"}`},
	{
		name:            "bridge, sbr with a gateway",
		hasStolenRoutes: true,
		plugins:         `{` + bridge + `},{"type":"sbr","gateways":["10.85.0.1"],"table":200}`,
	},
}

// mixed are chains of plugins of both programs.
var mixed = []network{
	{
		name:    "our bridge, their portmap and tuning",
		theirs:  []string{"portmap", "tuning"},
		plugins: `{` + bridge + `},{` + ports + `,"backend":"nftables"},{` + tuning + `}`,
	},
	{
		name:    "their bridge, our portmap and tuning",
		theirs:  []string{"bridge", "host-local"},
		plugins: `{` + bridge + `},{` + ports + `,"backend":"nftables"},{` + tuning + `}`,
	},
	{
		name:    "our ptp, their portmap and firewall by iptables",
		theirs:  []string{"portmap", "firewall"},
		plugins: `{` + ptp + `},{` + ports + `,"backend":"iptables"},` + firewall,
	},
	{
		name:    "their ptp, our portmap, firewall and bandwidth",
		theirs:  []string{"ptp"},
		plugins: `{` + ptp + `},{` + ports + `,"backend":"iptables"},` + firewall + `,{` + bandwidth + `}`,
	},
	{name: "our bridge, their host-local", theirs: []string{"host-local"}, plugins: `{` + bridge + `}`},
	{
		name:    "their bridge, our static",
		theirs:  []string{"bridge"},
		plugins: `{` + bridgeAlone + `,` + static + `}`,
	},
	{
		name:    "their macvlan, our host-local and tuning",
		theirs:  []string{"macvlan"},
		needs:   "macvlan",
		master:  true,
		plugins: `{"type":"macvlan","master":"eth1",` + hostLocal + `},{"type":"tuning","mtu":1300}`,
	},
	{
		name:            "their macvlan, our sbr",
		theirs:          []string{"macvlan"},
		needs:           "macvlan",
		master:          true,
		hasStolenRoutes: true,
		plugins:         `{"type":"macvlan","master":"eth1",` + hostLocal + `},{"type":"sbr"}`,
	},
	{
		name:    "their ipvlan, our host-local",
		theirs:  []string{"ipvlan"},
		needs:   "ipvlan",
		master:  true,
		plugins: `{"type":"ipvlan","master":"eth1",` + hostLocal + `}`,
	},
	{
		name:    "their vlan, our host-local",
		theirs:  []string{"vlan"},
		needs:   "vlan",
		master:  true,
		plugins: `{"type":"vlan","master":"eth1","vlanId":5,` + hostLocal + `}`,
	},
	{
		name:    "their host-device, our host-local",
		theirs:  []string{"host-device"},
		master:  true,
		plugins: `{"type":"host-device","device":"eth1",` + hostLocal + `}`,
	},
	{
		name:    "their dummy, our host-local",
		theirs:  []string{"dummy"},
		needs:   "dummy",
		plugins: `{"type":"dummy",` + hostLocal + `}`,
	},
}

// lacks says which kind of interface a network needs that the kernel does not have; "" for none.
func (n network) lacks() string {
	kind, options, _ := strings.Cut(n.needs, " ")
	if kind == "" {
		return ""
	}

	// Some kinds are made on top of another interface.
	const probe = "ip link add lower type veth peer name upper && ip link add probe %s type %s %s"
	link := map[string]string{"macvlan": "link lower", "ipvlan": "link lower", "vlan": "link lower"}[kind]
	if kind == "vlan" {
		options = "id 5"
	}
	script := fmt.Sprintf(probe, link, kind, options)
	if exec.Command("unshare", "--net", "sh", "-c", script).Run() != nil {
		return "the kernel has no " + n.needs
	}
	return ""
}

// list returns the configuration as a list, with a data directory.
func (n network) list(data string) string {
	version := n.version
	if version == "" {
		version = "1.0.0"
	}
	const format = `{"cniVersion":%q,"name":"swap","plugins":[%s]}`
	return fmt.Sprintf(format, version, strings.ReplaceAll(n.plugins, "%s", data))
}

// hasCheck reports whether the version has CHECK.
func (n network) hasCheck() bool { return n.version != "0.3.1" }
