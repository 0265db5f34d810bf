package netd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	forward4 = "/proc/sys/net/ipv4/ip_forward"
	forward6 = "/proc/sys/net/ipv6/conf/all/forwarding"
)

// forward lets the host pass packets between pods and networks, in the families that the pods have.
func (d *Daemon) forward(podCIDRs []netip.Prefix) error {
	var errs []error
	for _, p := range podCIDRs {
		name := forward6
		if p.Addr().Is4() {
			name = forward4
		}
		if sysctl(name) == "1" {
			continue
		}
		if name == forward6 {
			errs = append(errs, d.keepLearntRoutes())
		}

		if err := os.WriteFile(name, []byte("1"), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("let the host forward packets of pods %s: %w", p, err))
			continue
		}

		d.log.Info("the host forwards packets", "sysctl", name, "podCIDR", p.String())
	}

	return errors.Join(errs...)
}

func sysctl(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// keepLearntRoutes makes interfaces with a default route from a router's advertisement go on listening to
// that router. With accept_ra=1 the kernel drops the route and stops listening as soon as the host forwards;
// 2 means "even then" (Documentation/networking/ip-sysctl.rst). Other interfaces, above all those that pods
// are behind, are left as they are: nobody there may set the host's routes.
func (d *Daemon) keepLearntRoutes() error {
	routes, err := d.kernel.DefaultRoutes()
	if err != nil {
		return err
	}

	var errs []error
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_RA {
			continue
		}

		link, err := d.kernel.LinkByIndex(r.Index)
		name := "/proc/sys/net/ipv6/conf/" + link.Name + "/accept_ra"
		if err != nil || sysctl(name) != "1" {
			continue
		}

		if err := os.WriteFile(name, []byte("2"), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("keep interface %s listening to its router: %w", link.Name, err))
			continue
		}

		d.log.Info("interface goes on listening to its router though the host forwards",
			"interface", link.Name, "sysctl", name)
	}

	return errors.Join(errs...)
}
