// Package conf reads CNI network configurations: the keys of upstream's bridge, host-local and loopback plugins, and of portmap, with the same
// meaning, and a few of our own. What is not supported is refused by name, never ignored.
package conf

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/ipam"
)

// Network is a checked configuration.
type Network struct {
	CNIVersion string
	Name       string
	Type       string // "trivet-cni", "bridge", "host-local" or "loopback"

	Bridge           string
	IsGateway        bool // the bridge gets the gateway addresses, and the host forwards
	IsDefaultGateway bool // pods get default routes
	ForceAddress     bool
	IPMasq           bool
	Hairpin          bool
	Promiscuous      bool
	PortIsolation    bool
	DAD              bool
	MTU              int

	// HostRouted sends all traffic of a pod through the host, that to pods of the same bridge too. So packets between pods pass
	// the host's netfilter hooks, and Services work between pods of one node without br_netfilter.
	HostRouted bool
	// LazyUnlink lets DEL cut the host's end of the veth off instead of deleting it, which takes the kernel 16 to 30 ms: both ends
	// go with the container's namespace. For runtimes which destroy the namespace after DEL.
	LazyUnlink bool
	// NoMasq are destinations which see the pod's own address, beside the network's subnets: other nodes' pods.
	NoMasq []netip.Prefix

	IPAM *IPAM // nil: a network on layer 2 only
	DNS  types.DNS

	MAC      net.HardwareAddr // wanted for this container
	Ports    []Port
	SNAT     bool // host ports reached through loopback or from the same bridge are masqueraded
	HasPrev  bool
	Previous map[string]any
	Valid    []types.GCAttachment // GC only
	HasValid bool                 // an absent list is not an empty one
}

// IPAM is host-local's configuration.
type IPAM struct {
	DataDir    string
	Sets       []ipam.Set     // those asked for at run time come first
	Subnets    []netip.Prefix // of the configuration alone: what is the same for all containers
	Routes     []types.Route
	ResolvConf string
	Requested  []netip.Addr
	BootScoped bool
}

// Port is a host port of a container.
type Port struct {
	HostIP        netip.Addr // zero: every address of the node
	HostPort      uint16
	ContainerPort uint16
	Protocol      string // "tcp", "udp" or "sctp"
}

// DefaultDataDir is host-local's.
const DefaultDataDir = "/var/lib/cni/networks"

// Parse reads the JSON on stdin and CNI_ARGS. Errors are CNI errors: 6 for what is no JSON, 7 for a configuration that makes no
// sense, 2 for a key that is not supported.
func Parse(stdin []byte, args string) (*Network, error) {
	var w wire
	if err := json.Unmarshal(stdin, &w); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is no valid JSON", err.Error())
	}
	if err := w.refuse(); err != nil {
		return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf("network %q", w.Name), err.Error())
	}
	n, err := w.network(args)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %q", w.Name), err.Error())
	}
	return n, nil
}

func (w *wire) network(args string) (*Network, error) {
	n := &Network{
		CNIVersion: w.CNIVersion, Name: w.Name, Type: w.Type, Bridge: w.Bridge, IsDefaultGateway: w.IsDefaultGateway,
		IsGateway: w.IsGateway || w.IsDefaultGateway, ForceAddress: w.ForceAddress, IPMasq: w.IPMasq, Hairpin: w.HairpinMode,
		Promiscuous: w.PromiscMode, PortIsolation: w.PortIsolation, DAD: w.EnableDAD, MTU: w.MTU, HostRouted: w.HostRouted,
		LazyUnlink: w.LazyUnlink, DNS: w.DNS, SNAT: w.SNAT == nil || *w.SNAT, HasPrev: w.PrevResult != nil, Previous: w.PrevResult,
	}
	if n.Bridge == "" {
		n.Bridge = "cni0"
	}
	if w.ValidAttachments != nil {
		n.Valid, n.HasValid = *w.ValidAttachments, true
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	cniArgs, err := parseArgs(args)
	if err != nil {
		return nil, err
	}
	if n.MAC, err = w.mac(cniArgs); err != nil {
		return nil, err
	}
	if n.Ports, err = w.ports(); err != nil {
		return nil, err
	}
	if n.NoMasq, err = prefixes("noMasq", w.NoMasq); err != nil {
		return nil, err
	}
	if w.IPAM.Type != "" {
		n.IPAM, err = w.ipam(cniArgs)
	}
	return n, err
}

func (n *Network) check() error {
	switch {
	case len(n.Bridge) > 15 || strings.ContainsAny(n.Bridge, "/ \t\n"):
		return fmt.Errorf("bridge %q is no interface name (at most 15 characters, no slash or space)", n.Bridge)
	case n.Hairpin && n.Promiscuous:
		return fmt.Errorf("hairpinMode and promiscMode together make every packet arrive twice; choose one")
	case n.MTU < 0 || n.MTU > 65535:
		return fmt.Errorf("mtu %d is not within 0 and 65535", n.MTU)
	}
	return nil
}

// cniArgs is what CNI_ARGS may ask for.
type cniArgs struct {
	ip  string
	mac string
}

// parseArgs reads KEY=VALUE;KEY=VALUE. Kubernetes' keys and unknown ones are none of this plugin's business.
func parseArgs(args string) (a cniArgs, err error) {
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", pair)
		}
		switch key {
		case "IP":
			a.ip = value
		case "MAC":
			a.mac = value
		}
	}
	return a, nil
}

func (w *wire) mac(args cniArgs) (net.HardwareAddr, error) {
	text := args.mac
	for _, better := range []string{w.Args.CNI.MAC, w.RuntimeConfig.MAC} {
		if better != "" {
			text = better
		}
	}
	if text == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return nil, fmt.Errorf("mac %q is no Ethernet unicast address", text)
	}
	return mac, nil
}

func (w *wire) ports() ([]Port, error) {
	var all []Port
	for _, m := range w.RuntimeConfig.PortMappings {
		if m.HostPort == 0 {
			continue // as upstream: no host port is wanted
		}
		p := Port{HostPort: uint16(m.HostPort), ContainerPort: uint16(m.ContainerPort), Protocol: strings.ToLower(m.Protocol)}
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return nil, fmt.Errorf("port mapping %d to %d: ports are 1 to 65535", m.HostPort, m.ContainerPort)
		}
		if p.Protocol != "tcp" && p.Protocol != "udp" && p.Protocol != "sctp" {
			return nil, fmt.Errorf("port mapping of host port %d: protocol %q is none of tcp, udp, sctp", m.HostPort, m.Protocol)
		}
		if m.HostIP != "" {
			ip, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, fmt.Errorf("port mapping of host port %d: hostIP: %w", m.HostPort, err)
			}
			if ip = ip.Unmap(); !ip.IsUnspecified() {
				p.HostIP = ip
			}
		}
		all = append(all, p)
	}
	return all, nil
}

func prefixes(key string, words []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, word := range words {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
