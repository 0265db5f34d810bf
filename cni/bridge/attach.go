package bridge

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Attach makes the bridge match the configuration and connects the pod to it, by two batches of messages: one
// on the host, one in the pod. After an error the veth is gone; the bridge stays.
func Attach(host *rtnl.Conn, c Config, a Attachment) (ends Ends, err error) {
	if ends.Bridge, err = ensure(host, c, a.Addresses); err != nil {
		return ends, err
	}

	// The kernel takes the peer's namespace as a file descriptor.
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
	if v.MTU == 0 {
		v.MTU = ends.Bridge.MTU
	}
	if err := connect(host, c, a, v); err != nil {
		return ends, explain(err, c.Name)
	}

	ends.Host = rtnl.Link{Name: v.Name, MAC: v.MAC, MTU: v.MTU}
	ends.Pod = rtnl.Link{Name: v.PeerName, MAC: v.PeerMAC, MTU: v.MTU}

	// The host's end is there, so that what fails from here on has to remove it. The pod's end goes with it.
	err = namespace.Visit(func() (err error) {
		ends.Pod.Index, err = setUp(c, a)
		return err
	}, a.Netns)
	if err == nil {
		err = announce(host, c, a, ends)
	}
	if err != nil {
		return ends, errors.Join(err, host.EnsureNoLink(v.Name))
	}

	return ends, nil
}

// connect creates the veth. An interface that has its name already makes it fail, unless that is one that DEL
// has cut off.
func connect(host *rtnl.Conn, c Config, a Attachment, v rtnl.Veth) error {
	err := createVeth(host, c, a, v)
	if !netlink.IsExist(err) {
		return err
	}

	// Something has the name of one of the two ends, on the host or in the pod.
	old, lookErr := host.LinkByName(v.Name)
	switch {
	case netlink.IsNotExist(lookErr):
		const format = "interface %s is there already in network namespace %s"
		return fmt.Errorf(format, a.Owner.IfName, a.Netns)
	case lookErr != nil:
		return lookErr
	case old.Group != discardGroup:
		const format = "interface %s of container %s is there already (host's end %s)"
		return fmt.Errorf(format, a.Owner.IfName, a.Owner.ContainerID, v.Name)
	}

	if err := host.EnsureNoLink(v.Name); err != nil {
		return err
	}

	return createVeth(host, c, a, v)
}

// createVeth creates the pair, attached to the bridge, or nothing.
func createVeth(host *rtnl.Conn, c Config, a Attachment, v rtnl.Veth) error {
	errs, err := host.Do(
		rtnl.NewVeth(v),
		rtnl.SetAlias(v.Name, alias(c.Network, a.Owner)),
		rtnl.SetPort(v.Name, c.Port),
	)
	if err != nil {
		return err
	}

	// Without the veth the other two failed as well, and only say that it is not there.
	if errs[0] != nil {
		return errs[0]
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, host.EnsureNoLink(v.Name))
	}

	return nil
}

// explain says what EXFULL means: a bridge has 1,024 port numbers, of which the kernel uses 1,023.
func explain(err error, bridge string) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("bridge %s is full (a Linux bridge has 1023 ports): %w", bridge, err)
	}
	return err
}
