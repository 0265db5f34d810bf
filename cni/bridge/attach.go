package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Attach makes the bridge fit and connects the pod to it: two batches of messages, one on the host, one in
// the pod. On an error the veth is gone again; the bridge stays.
func Attach(host *rtnl.Conn, c Config, a Attachment) (ends Ends, err error) {
	if ends.Bridge, err = Ensure(host, c, a.Addresses); err != nil {
		return ends, err
	}

	pod, err := os.Open(a.Netns)
	if err != nil {
		return ends, fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = pod.Close() }()

	v := rtnl.Veth{
		Name:          HostName(c.Network, a.Owner),
		Master:        ends.Bridge.Index,
		MTU:           c.MTU,
		MAC:           hashMAC("host "+a.Owner.String(), nil),
		PeerName:      a.Owner.IfName,
		PeerMAC:       podMAC(a),
		PeerNamespace: int(pod.Fd()),
	}
	if c.MTU == 0 {
		v.MTU = ends.Bridge.MTU
	}
	if err := connect(host, c, a, v); err != nil {
		return ends, explain(err, c.Name)
	}

	podIndex := 0
	err = namespace.Visit(func() error {
		podIndex, err = setUp(c, a)
		return err
	}, a.Netns)
	if err == nil {
		err = announce(host, c, a, ends.Bridge, v.PeerMAC)
	}
	if err != nil {
		return ends, errors.Join(err, host.DeleteIfThere(v.Name))
	}

	ends.Host = rtnl.Link{Name: v.Name, MAC: v.MAC, MTU: v.MTU}
	ends.Pod = rtnl.Link{
		Name:  v.PeerName,
		MAC:   v.PeerMAC,
		MTU:   v.MTU,
		Index: podIndex,
	}

	return ends, nil
}

// connect creates the pair, attached to the bridge, or nothing.
func connect(host *rtnl.Conn, c Config, a Attachment, v rtnl.Veth) error {
	try := func() error {
		errs, err := host.Do(rtnl.NewVeth(v), rtnl.Describe(v.Name, alias(c.Network, a.Owner)),
			rtnl.SetPort(v.Name, c.Port))
		if err != nil {
			return err
		}

		if errs[0] != nil {
			// what follows from it need not be told
			return errs[0]
		}

		if err := errors.Join(errs...); err != nil {
			return errors.Join(err, host.DeleteIfThere(v.Name))
		}

		return nil
	}

	err := try()
	if !rtnl.Exists(err) {
		return err
	}

	// Something of the same name is there, on the host or in the pod.
	old, lookErr := host.LinkByName(v.Name)
	switch {
	case rtnl.Gone(lookErr):
		return fmt.Errorf("interface %s is there already in network namespace %s", a.Owner.IfName, a.Netns)
	case lookErr != nil:
		return lookErr
	case old.Group != DiscardGroup:
		return fmt.Errorf("interface %s of container %s is there already (host's end %s)", a.Owner.IfName,
			a.Owner.ContainerID, v.Name)
	}

	// left by a DEL that did not wait
	if err := host.DeleteIfThere(v.Name); err != nil {
		return err
	}

	return try()
}

// setUp runs in the pod's namespace and returns the index of the interface there.
func setUp(c Config, a Attachment) (int, error) {
	pod, err := rtnl.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = pod.Close() }()

	link, err := pod.LinkByName(a.Owner.IfName)
	if err != nil {
		return 0, err
	}
	if err := sysctls(c, a); err != nil {
		return 0, err
	}
	if err := refuseAdvertisements(link.Name, a); err != nil {
		return 0, err
	}

	return link.Index, pod.Must(podMessages(c, a, link.Index)...)
}

const loopbackIndex = 1

func podMessages(c Config, a Attachment, index int) []*rtnl.Message {
	flags := uint32(rtnl.NoDAD)
	if c.DAD {
		flags = 0
	}
	if c.HostRouted {
		flags |= rtnl.NoPrefixRoute
	}

	messages := []*rtnl.Message{rtnl.SetUp(loopbackIndex)}
	for _, address := range a.Addresses {
		messages = append(messages, rtnl.NewAddress(index, address.Prefix, flags))
	}

	messages = append(messages, rtnl.SetUp(index))
	// Another network's routes to the same places stay: a container's second interface does not take the
	// first one's default route.
	for _, r := range podRoutes(c, a) {
		r.Index = index
		messages = append(messages, rtnl.NewRoute(r))
	}

	return messages
}

// podRoutes are the pod's routes with those that lead to the gateways.
func podRoutes(c Config, a Attachment) []rtnl.Route {
	var routes []rtnl.Route
	if c.HostRouted {
		for _, address := range a.Addresses {
			if !address.Gateway.IsValid() {
				continue
			}

			routes = append(routes,
				rtnl.Route{Dst: netip.PrefixFrom(address.Gateway, address.Gateway.BitLen())},
				rtnl.Route{Dst: address.Prefix.Masked(), Gateway: address.Gateway})
		}
	}

	return unique(append(routes, a.Routes...))
}

// unique leaves out a route that is there already: two addresses of a pod may have one gateway.
func unique(routes []rtnl.Route) []rtnl.Route {
	var all []rtnl.Route
	for _, r := range routes {
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// sysctls of the pod's namespace.
func sysctls(c Config, a Attachment) error {
	if c.HostRouted {
		// The host sees packets that come in and go out by the same bridge and says so by ICMP redirects. A
		// pod that believed them would bypass the host again. Both "all" and the interface count
		// (IN_DEV_ORCONF).
		for _, name := range []string{"all", a.Owner.IfName} {
			if err := set("net/ipv4/conf/"+name+"/accept_redirects", "0"); err != nil {
				return err
			}
		}
	}

	for _, address := range a.Addresses {
		if address.Prefix.Addr().Is4() {
			continue
		}

		wanted := [][2]string{{"disable_ipv6", "0"}, {"accept_redirects", "0"}}

		// the kernel says that the address has moved when it knows that nobody else has it
		if c.DAD {
			wanted = append(wanted, [2]string{"ndisc_notify", "1"})
		}

		for _, s := range wanted {
			if err := set("net/ipv6/conf/"+a.Owner.IfName+"/"+s[0], s[1]); err != nil {
				return err
			}
		}

		return set("net/ipv6/conf/lo/disable_ipv6", "0")
	}

	return nil
}
