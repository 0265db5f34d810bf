package conf

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/trivet-node/trivet/cni/conf/document"
)

// Port is a host port that the runtime asks for.
type Port struct {
	// HostIP is the node's address that the port is published on: all addresses of the family if it is
	// unspecified (0.0.0.0, ::), all of both families if it is zero.
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string
}

func (p Port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	const format = "host port %s:%d/%s to container port %d"
	return fmt.Sprintf(format, host, p.HostPort, p.Protocol, p.ContainerPort)
}

// conflicts reports whether p and q, of one number and protocol, cannot both be published. A single address
// beside all of them can: the more specific one wins.
func (p Port) conflicts(q Port) bool {
	if !p.onAllAddresses() || !q.onAllAddresses() {
		return p.HostIP == q.HostIP
	}
	return !p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP
}

func (p Port) onAllAddresses() bool { return !p.HostIP.IsValid() || p.HostIP.IsUnspecified() }

// PortMapping is a host port as the runtime writes it.
type PortMapping struct {
	HostPort      int
	ContainerPort int
	Protocol      string
	HostIP        string
}

// ReadPortMappings reads the host ports of a runtimeConfig.
func ReadPortMappings(runtimeConfig document.Object) (all []PortMapping) {
	for _, o := range runtimeConfig.Objects("portMappings") {
		var m PortMapping
		o.Read("hostPort", &m.HostPort)
		o.Read("containerPort", &m.ContainerPort)
		o.Read("protocol", &m.Protocol)
		o.Read("hostIP", &m.HostIP)
		all = append(all, m)
	}
	return all
}

// ReadPorts reads the host ports. One that is named twice for the same container port counts once.
func ReadPorts(mappings []PortMapping) ([]Port, error) {
	type number struct {
		protocol string
		port     uint16
	}

	seen := map[number][]Port{}
	var all []Port
	for _, m := range mappings {
		// No host port is wanted. Upstream's portmap refuses it (v1.10.0).
		if m.HostPort == 0 {
			continue
		}

		p, err := m.parse()
		if err != nil {
			return nil, err
		}

		key := number{p.Protocol, p.HostPort}
		known, err := isAmong(seen[key], p)
		if err != nil {
			return nil, err
		}

		if !known {
			seen[key] = append(seen[key], p)
			all = append(all, p)
		}
	}

	return all, nil
}

// isAmong reports whether p is one of some ports of its number and protocol. It is an error if one of them
// leads what is sent to p to another container port.
func isAmong(ports []Port, p Port) (known bool, err error) {
	for _, q := range ports {
		if !p.conflicts(q) {
			continue
		}
		if p.ContainerPort != q.ContainerPort {
			return false, Invalid("%s and %s: one host port leads to one container port", q, p)
		}
		if p.HostIP == q.HostIP {
			known = true
		}
	}

	return known, nil
}

func (m PortMapping) parse() (Port, error) {
	p := Port{
		HostPort:      uint16(m.HostPort),
		ContainerPort: uint16(m.ContainerPort),
		Protocol:      strings.ToLower(m.Protocol),
	}
	if p.Protocol == "" {
		p.Protocol = "tcp"
	}

	if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return p, Invalid("port mapping %d to %d: ports are 1 to 65535", m.HostPort, m.ContainerPort)
	}

	switch p.Protocol {
	case "tcp", "udp", "sctp":
	default:
		const format = "port mapping of host port %d: protocol %q is not one of tcp, udp, sctp"
		return p, Invalid(format, m.HostPort, m.Protocol)
	}

	// No address is all of them, of both families.
	if m.HostIP == "" {
		return p, nil
	}

	ip, err := netip.ParseAddr(m.HostIP)
	if err != nil {
		return p, Invalid("port mapping of host port %d: hostIP: %w", m.HostPort, err)
	}

	if ip.Zone() != "" {
		return p, Invalid("port mapping of host port %d: hostIP %q has a zone", m.HostPort, m.HostIP)
	}

	p.HostIP = ip.Unmap()
	return p, nil
}
