// Package conf reads CNI network configurations: the keys of upstream's bridge, host-local and loopback
// plugins, and of portmap, with the same meaning, and a few of our own. What is not supported is refused by
// name, never ignored.
package conf

import (
	"encoding/json"
	"errors"
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
	Type       string // of the configuration: the main plugin's, in a call of the IPAM plugin too
	Role       Role   // what is asked of this program

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

	// HostRouted sends all traffic of a pod through the host, that to pods of the same bridge too. So packets
	// between pods pass the host's netfilter hooks, and Services work between pods of one node without
	// br_netfilter.
	HostRouted bool
	// LazyUnlink lets DEL cut the host's end of the veth off instead of deleting it, which takes the kernel
	// 16 to 30 ms: both ends go with the container's namespace. For runtimes which destroy the namespace
	// after DEL.
	LazyUnlink bool
	// NoMasq are destinations which see the pod's own address, beside the network's subnets: other nodes'
	// pods.
	NoMasq []netip.Prefix

	IPAM *IPAM // nil: a network on layer 2 only
	DNS  types.DNS

	MAC      net.HardwareAddr // wanted for this container
	Ports    []Port
	SNAT     bool                 // masquerade what reaches a host port by loopback or from the bridge
	Previous map[string]any       // prevResult; nil: none
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

// DefaultDataDir is host-local's.
const DefaultDataDir = "/var/lib/cni/networks"

// Parse reads the JSON on stdin and CNI_ARGS for an operation that sets something up or looks at it; program
// is the name that the program was called by. Errors are CNI errors: 6 for what is no JSON, 7 for a
// configuration that makes no sense, 2 for a key that is not supported.
func Parse(program string, stdin []byte, args string) (*Network, error) {
	h, role, err := readHead(program, stdin)
	if err != nil {
		return nil, err
	}

	n := &Network{
		CNIVersion: h.CNIVersion,
		Name:       h.Name,
		Type:       h.Type,
		Role:       role,
		Previous:   h.PrevResult,
	}

	switch role {
	case Loopback:
		return n, nil
	case HostLocal:
		err = n.readDelegated(stdin, args)
	default:
		err = n.readMain(stdin, args)
	}

	if err != nil {
		return nil, coded(h.Name, err)
	}

	return n, nil
}

// coded gives an error that has no CNI code the one of a configuration without sense.
func coded(network string, err error) error {
	var known *types.Error
	if errors.As(err, &known) {
		return err
	}
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %q", network), err.Error())
}

func undecodable(err error) error {
	return types.NewError(types.ErrDecodingFailure, "network configuration is no valid JSON", err.Error())
}

// readMain reads the configuration of a plugin that makes interfaces.
func (n *Network) readMain(stdin []byte, args string) error {
	var w wire
	if err := json.Unmarshal(stdin, &w); err != nil {
		return undecodable(err)
	}
	if err := w.refuse(); err != nil {
		return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("network %q", n.Name), err.Error())
	}

	cniArgs, err := parseArgs(args)
	if err != nil {
		return err
	}

	return w.fill(n, cniArgs)
}

// readDelegated reads what an IPAM plugin needs of the configuration of any main plugin, whose other keys
// mean nothing here.
func (n *Network) readDelegated(stdin []byte, args string) error {
	var w wireDelegated
	if err := json.Unmarshal(stdin, &w); err != nil {
		return undecodable(err)
	}
	if w.IPAM.Type == "" && w.IPAM.Subnet == "" && len(w.IPAM.Ranges) == 0 {
		return nil
	}

	cniArgs, err := parseArgs(args)
	if err != nil {
		return err
	}

	n.IPAM, err = w.ipam(n.CNIVersion, cniArgs)
	return err
}

// fill puts what the JSON says into n.
func (w *wire) fill(n *Network, args cniArgs) (err error) {
	n.Bridge, n.ForceAddress, n.MTU, n.DAD = w.Bridge, w.ForceAddress, w.MTU, w.EnableDAD
	n.IsDefaultGateway, n.IsGateway = w.IsDefaultGateway, w.IsGateway || w.IsDefaultGateway
	n.Hairpin, n.Promiscuous, n.PortIsolation = w.HairpinMode, w.PromiscMode, w.PortIsolation
	n.HostRouted, n.LazyUnlink = w.HostRouted, w.LazyUnlink
	n.IPMasq, n.SNAT, n.DNS = w.IPMasq, w.SNAT == nil || *w.SNAT, w.DNS
	if n.Bridge == "" {
		n.Bridge = defaultBridge
	}
	if err := n.check(); err != nil {
		return err
	}

	if n.MAC, err = w.mac(args); err != nil {
		return err
	}
	if n.Ports, err = w.ports(); err != nil {
		return err
	}
	if n.NoMasq, err = prefixes("noMasq", w.NoMasq); err != nil {
		return err
	}
	if w.IPAM.Type != "" {
		n.IPAM, err = w.ipam(n.CNIVersion, args)
	}

	return err
}

// defaultBridge is upstream's.
const defaultBridge = "cni0"

func (n *Network) check() error {
	switch {
	case len(n.Bridge) > 15 || strings.ContainsAny(n.Bridge, "/: \t\n") || n.Bridge == "." ||
		n.Bridge == "..":
		return fmt.Errorf("bridge %q is no interface name (at most 15 characters, no slash, colon or space)",
			n.Bridge)
	case n.Hairpin && n.Promiscuous:
		return fmt.Errorf("hairpinMode and promiscMode together make every packet arrive twice; choose one")
	case n.MTU < 0 || n.MTU > 65535:
		return fmt.Errorf("mtu %d is not within 0 and 65535", n.MTU)
	}
	return nil
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
