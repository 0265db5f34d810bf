package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/conf/limit"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/isolation"
	"github.com/trivet-node/trivet/cni/masquerade"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Network is the configuration of a network on a bridge: of upstream's bridge, and of trivet-cni.
type Network struct {
	Bridge bridge.Config
	// DefaultGateway gives pods default routes through the bridge.
	DefaultGateway bool
	NAT            hostnat.Config
	// PerPod has masquerading done pod by pod, in the backend that the configuration names; "" leaves it to
	// NAT.
	PerPod masquerade.Backend
	// Policy holds pods whose namespace has network policies until trivet-netd has written their rules.
	Policy bool
	// Ingress says who may begin connections to pods from this node's bridges.
	Ingress isolation.Policy
	// SourceGuard drops what pods send with another MAC address or IP address than their own.
	SourceGuard bool
	// MACSpoofCheck drops what pods send with another MAC address than their own.
	MACSpoofCheck bool
	// IPAMType is that of the plugin that gives addresses; "" for a network on layer 2 only.
	IPAMType string
	// IPAM is host-local's; nil when another plugin gives addresses.
	IPAM *IPAM
	// Pool is where the network's host ports are recorded, whichever plugin gives addresses.
	Pool    ipam.Location
	DNS     types.DNS
	Runtime Runtime
}

// Runtime is what the runtime asks for one container.
type Runtime struct {
	// MAC is nil when the plugin chooses.
	MAC net.HardwareAddr
	// Pod is the pod of Kubernetes, if the container has one.
	Pod Pod
	// Ports are the host ports; none when another plugin publishes them.
	Ports []Port
	// Limits are those of its traffic; none when another plugin sets them.
	Limits limit.Limits
}

// Options are what a call says beside the configuration.
type Options struct {
	// Args is CNI_ARGS.
	Args string
	// HostPorts is false for upstream's bridge, which leaves host ports to portmap.
	HostPorts bool
}

// keys are those of a network on a bridge.
type keys struct {
	bridgeKeys
	natKeys
	refusedKeys
	ipamKeys
	DNS     types.DNS
	Policy  bool
	Ingress string
}

func (k *keys) read(o document.Object) {
	k.bridgeKeys.read(o)
	k.natKeys.read(o)
	k.refusedKeys.read(o)
	k.ipamKeys.read(o)
	k.DNS = readDNS(o)
	o.Read("networkPolicy", &k.Policy)
	o.Read("ingressPolicy", &k.Ingress)
}

// bridgeKeys are upstream's keys of the bridge, and hostRouted, which is ours.
type bridgeKeys struct {
	Bridge           string
	IsGateway        bool
	IsDefaultGateway bool
	ForceAddress     bool
	HairpinMode      bool
	PromiscMode      bool
	PortIsolation    bool
	EnableDAD        bool
	MTU              int
	HostRouted       bool
	SourceGuard      bool

	VLAN             int
	VLANTrunk        []trunkKeys
	PreserveDefault  bool
	MACSpoofCheck    bool
	DisableInterface bool
}

func (k *bridgeKeys) read(o document.Object) {
	o.Read("bridge", &k.Bridge)
	o.Read("isGateway", &k.IsGateway)
	o.Read("isDefaultGateway", &k.IsDefaultGateway)
	o.Read("forceAddress", &k.ForceAddress)
	o.Read("hairpinMode", &k.HairpinMode)
	o.Read("promiscMode", &k.PromiscMode)
	o.Read("portIsolation", &k.PortIsolation)
	o.Read("enabledad", &k.EnableDAD)
	o.Read("mtu", &k.MTU)
	o.Read("hostRouted", &k.HostRouted)
	o.Read("sourceGuard", &k.SourceGuard)

	o.Read("vlan", &k.VLAN)
	k.VLANTrunk = readTrunk(o)
	o.Read("preserveDefaultVlan", &k.PreserveDefault)
	o.Read("macspoofchk", &k.MACSpoofCheck)
	o.Read("disableContainerInterface", &k.DisableInterface)
}

// refusedKeys are upstream's keys of portmap and firewall that trivet-cni does not have.
type refusedKeys struct {
	Backend      string
	ConditionsV4 []string
	ConditionsV6 []string
	MasqAll      bool
	MarkMasqBit  *int
	SetMarkChain *string
	AdminChain   string
	Zone         string
}

func (k *refusedKeys) read(o document.Object) {
	o.Read("backend", &k.Backend)
	o.Read("conditionsV4", &k.ConditionsV4)
	o.Read("conditionsV6", &k.ConditionsV6)
	o.Read("masqAll", &k.MasqAll)
	o.Read("markMasqBit", &k.MarkMasqBit)
	o.Read("externalSetMarkChain", &k.SetMarkChain)
	o.Read("iptablesAdminChainName", &k.AdminChain)
	o.Read("firewalldZone", &k.Zone)
}

// natKeys are those of masquerading and host ports: upstream's of bridge and portmap, and noMasq, which is
// ours.
type natKeys struct {
	IPMasq        bool
	IPMasqBackend string
	NoMasq        []string
	SNAT          *bool
}

func (k *natKeys) read(o document.Object) {
	o.Read("ipMasq", &k.IPMasq)
	o.Read("ipMasqBackend", &k.IPMasqBackend)
	o.Read("noMasq", &k.NoMasq)
	o.Read("snat", &k.SNAT)
}

// MaxMTU is the most that an interface can have.
const MaxMTU = 65535

// defaultBridge is the name of the bridge that upstream's plugin makes when the configuration has none.
const defaultBridge = "cni0"

// ReadNetwork reads the configuration of a network on a bridge, for an operation that sets something up or
// looks at it. DEL and GC use ReadTeardown.
func ReadNetwork(stdin []byte, o Options) (*Network, error) {
	var k keys
	if err := Decode(stdin, k.read); err != nil {
		return nil, err
	}

	// Before anything is checked: a key that is not supported may be why the rest looks wrong.
	if o.HostPorts {
		if err := k.refuse(); err != nil {
			return nil, err
		}
	}

	args, err := ParseArgs(o.Args)
	if err != nil {
		return nil, err
	}

	n := &Network{
		Bridge:         k.bridgeKeys.config(k.Name),
		DefaultGateway: k.IsDefaultGateway,
		DNS:            k.DNS,
		IPAMType:       k.IPAM.Type,
		Pool:           k.IPAM.poolKeys.location(k.Name),
		Policy:         k.Policy && o.HostPorts,
		SourceGuard:    k.SourceGuard,
		MACSpoofCheck:  k.MACSpoofCheck,
		Ingress:        k.ingress(o.HostPorts),
	}
	if err := check(n.Bridge); err != nil {
		return nil, err
	}
	if err := k.bridgeKeys.setVLANs(&n.Bridge); err != nil {
		return nil, err
	}
	if err := checkIPAMType(n.IPAMType); err != nil {
		return nil, err
	}
	if n.Bridge.PodDown && n.IPAMType != "" {
		return nil, Invalid("disableContainerInterface leaves no interface for the addresses of ipam")
	}
	if n.Runtime, err = k.runtime(args, o.HostPorts); err != nil {
		return nil, err
	}

	if k.IPAM.Type == HostLocal || k.IPAM.Type == Own {
		if n.IPAM, err = k.ipamKeys.config(args); err != nil {
			return nil, err
		}
	}

	if n.PerPod, err = k.natKeys.perPod(o.HostPorts); err != nil {
		return nil, err
	}

	// Last, since it depends on the bridge and on the subnets.
	n.NAT, err = k.natKeys.config(n, o.HostPorts)
	return n, err
}

func (k bridgeKeys) config(network string) bridge.Config {
	c := bridge.Config{
		Network:      network,
		Name:         k.Bridge,
		MTU:          k.MTU,
		IsGateway:    k.IsGateway || k.IsDefaultGateway,
		ForceAddress: k.ForceAddress,
		Port:         rtnl.Port{Hairpin: k.HairpinMode, Isolated: k.PortIsolation},
		Promiscuous:  k.PromiscMode,
		HostRouted:   k.HostRouted,
		PodDown:      k.DisableInterface,
		DAD:          k.EnableDAD,
	}
	if c.Name == "" {
		c.Name = defaultBridge
	}

	return c
}

// setVLANs sets the VLANs of a bridge, and checks the name of the gateway's link in one.
func (k bridgeKeys) setVLANs(c *bridge.Config) (err error) {
	if c.VLANs, err = k.vlans(); err != nil {
		return err
	}
	if link := c.GatewayLink(); c.IsGateway && !isInterfaceName(link) {
		return Invalid("%s, the gateway in vlan %d, is not an interface name", link, k.VLAN)
	}
	return nil
}

func check(c bridge.Config) error {
	switch {
	case !isInterfaceName(c.Name):
		const rule = "at most 15 characters, no slash, colon or space"
		return Invalid("bridge %q is not an interface name (%s)", c.Name, rule)
	case c.Port.Hairpin && c.Promiscuous:
		return Invalid("hairpinMode and promiscMode together make every packet arrive twice; choose one")
	case c.MTU < 0 || c.MTU > MaxMTU:
		return Invalid("mtu %d is not within 0 and %d", c.MTU, MaxMTU)
	}
	return nil
}

// isInterfaceName is the kernel's dev_valid_name.
func isInterfaceName(name string) bool {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." {
		return false
	}
	return !strings.ContainsAny(name, "/: \t\n")
}

// config returns the NAT of n, whose bridge and addresses are known.
func (k natKeys) config(n *Network, hostPorts bool) (hostnat.Config, error) {
	c := hostnat.Config{
		Network:    n.Bridge.Network,
		Bridge:     n.Bridge.Name,
		Masquerade: k.IPMasq && n.PerPod == "",
		SNAT:       k.SNAT == nil || *k.SNAT,
		HostRouted: n.Bridge.HostRouted,
		Ports:      hostPorts,
	}
	if n.IPAM != nil {
		c.Subnets = n.IPAM.Subnets
	}

	// What is routed from and to pods in a VLAN comes and goes by the host's own port in it.
	if n.Bridge.IsGateway {
		c.Bridge = n.Bridge.GatewayLink()
	}

	for _, text := range k.NoMasq {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return c, Invalid("noMasq: %w", err)
		}

		c.NoMasq = append(c.NoMasq, p.Masked())
	}

	return c, nil
}

// refuse returns an error that names the first key that is not supported: portmap's and firewall's, which
// trivet-cni has no equivalent of, since its host ports are elements of maps and its rules are nftables'. As
// plugins, bridge, portmap and firewall have all keys. A key that another one needs is named, too.
func (k *keys) refuse() error {
	for _, refused := range []struct {
		key string
		set bool
	}{
		{"ipMasqBackend", k.IPMasqBackend == "iptables"},
		{"backend", k.Backend == "iptables" || k.Backend == "firewalld"},
		{"conditionsV4", len(k.ConditionsV4) > 0},
		{"conditionsV6", len(k.ConditionsV6) > 0},
		{"masqAll", k.MasqAll},
		{"markMasqBit", k.MarkMasqBit != nil},
		{"externalSetMarkChain", k.SetMarkChain != nil},
		{"iptablesAdminChainName", k.AdminChain != ""},
		{"firewalldZone", k.Zone != ""},
	} {
		if refused.set {
			const have = "trivet-cni has nftables alone; the plugins bridge, portmap and firewall have it"
			return fmt.Errorf("%w: key %q with this value (%s)", ErrUnsupported, refused.key, have)
		}
	}

	if _, err := isolation.ParsePolicy(k.Ingress); err != nil {
		return Invalid("ingressPolicy %w", err)
	}
	if k.Policy && !k.HostRouted {
		return Invalid("networkPolicy needs hostRouted: what is bridged passes no rules")
	}
	return nil
}

// ingress is of trivet-cni alone: upstream's bridge leaves it to firewall.
func (k *keys) ingress(own bool) isolation.Policy {
	if !own {
		return isolation.Open
	}
	return isolation.Policy(k.Ingress)
}

func (k *keys) runtime(args Args, hostPorts bool) (r Runtime, err error) {
	r.Pod = args.Pod
	if r.MAC, err = k.mac(args); err != nil {
		return r, err
	}
	ports, err := ReadPorts(k.RuntimeConfig.PortMappings)
	if !hostPorts || err != nil {
		return r, err
	}

	r.Ports = ports
	if r.Limits, err = k.RuntimeConfig.Bandwidth.Limits(); err != nil {
		return r, Invalid("bandwidth: %w", err)
	}

	return r, nil
}

// mac returns the MAC address that is asked for: by runtimeConfig, else by args.cni, else by CNI_ARGS.
func (k *keys) mac(args Args) (net.HardwareAddr, error) {
	for _, text := range []string{k.RuntimeConfig.MAC, k.Args.MAC, args.MAC} {
		if text == "" {
			continue
		}
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return nil, Invalid("mac %q is not an Ethernet unicast address", text)
		}
		return mac, nil
	}
	return nil, nil
}
