package netd

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/sysctl"
)

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

// forward lets the host pass packets between pods and networks, in the families that the pods have.
func (d *Daemon) forward(podCIDRs []netip.Prefix) error {
	var errs []error
	for _, p := range podCIDRs {
		name := forward6
		if p.Addr().Is4() {
			name = forward4
		}
		if sysctl.Get(name) == "1" {
			continue
		}

		if name == forward6 {
			errs = append(errs, d.keepLearntRoutes())
		}

		if err := sysctl.Set(name, "1"); err != nil {
			errs = append(errs, fmt.Errorf("let the host forward packets of pods %s: %w", p, err))
			continue
		}

		d.log.Info("the host forwards packets", "sysctl", name, "pod_cidr", p.String())
	}

	return errors.Join(errs...)
}

// keepLearntRoutes makes interfaces with a default route from a router advertisement keep listening to that
// router. With accept_ra=1 the kernel drops the route and stops listening as soon as the host forwards; 2
// means "even then" (Documentation/networking/ip-sysctl.rst). Other interfaces, above all those with pods
// behind them, are left as they are: nobody there may set the host's routes.
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

		// An interface that has gone meanwhile has no route to keep.
		link, err := d.kernel.LinkByIndex(r.Index)
		name := "net/ipv6/conf/" + link.Name + "/accept_ra"
		if err != nil || sysctl.Get(name) != "1" {
			continue
		}

		if err := sysctl.Set(name, "2"); err != nil {
			errs = append(errs, fmt.Errorf("keep interface %s listening to its router: %w", link.Name, err))
			continue
		}

		const message = "interface keeps listening to its router although the host forwards"
		d.log.Info(message, "interface", link.Name, "sysctl", name)
	}

	return errors.Join(errs...)
}
