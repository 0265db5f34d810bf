package conf

import (
	"fmt"
	"net/netip"
	"strings"
)

// Port is a host port of a container.
type Port struct {
	// HostIP is the node's address that the port is of: all addresses of the family if it is unspecified
	// (0.0.0.0, ::), all of both families if it is zero.
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	Protocol      string // "tcp", "udp" or "sctp"
}

func (p Port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("host port %s:%d/%s to container port %d", host, p.HostPort, p.Protocol,
		p.ContainerPort)
}

// sameHost reports whether p and q, of one number and protocol, cannot both be had. A single address beside
// all of them can: the more specific one wins.
func (p Port) sameHost(q Port) bool {
	all := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	if all(p.HostIP) && all(q.HostIP) {
		return !p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP
	}
	return p.HostIP == q.HostIP
}

// ports reads the wanted host ports. One that is named twice for the same container port counts once.
func (w *wire) ports() ([]Port, error) {
	type number struct {
		protocol string
		port     uint16
	}

	seen := map[number][]Port{}
	var all []Port
	for _, m := range w.RuntimeConfig.PortMappings {
		if m.HostPort == 0 {
			// as upstream: no host port is wanted
			continue
		}

		p, err := m.port()
		if err != nil {
			return nil, err
		}

		key, twice := number{p.Protocol, p.HostPort}, false
		for _, q := range seen[key] {
			if !p.sameHost(q) {
				continue
			}
			if p.ContainerPort != q.ContainerPort {
				return nil, fmt.Errorf("%s and %s: one host port leads to one container port", q, p)
			}

			twice = twice || p.HostIP == q.HostIP
		}

		if !twice {
			seen[key] = append(seen[key], p)
			all = append(all, p)
		}
	}

	return all, nil
}

func (m portMapping) port() (Port, error) {
	p := Port{HostPort: uint16(m.HostPort), ContainerPort: uint16(m.ContainerPort),
		Protocol: strings.ToLower(m.Protocol)}
	if p.Protocol == "" {
		p.Protocol = "tcp"
	}
	if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return p, fmt.Errorf("port mapping %d to %d: ports are 1 to 65535", m.HostPort, m.ContainerPort)
	}

	if p.Protocol != "tcp" && p.Protocol != "udp" && p.Protocol != "sctp" {
		return p, fmt.Errorf("port mapping of host port %d: protocol %q is none of tcp, udp, sctp",
			m.HostPort, m.Protocol)
	}

	if m.HostIP != "" {
		ip, err := netip.ParseAddr(m.HostIP)
		if err != nil {
			return p, fmt.Errorf("port mapping of host port %d: hostIP: %w", m.HostPort, err)
		}

		p.HostIP = ip.Unmap()
	}

	return p, nil
}
