package bridge

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/blocking"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Attach makes the bridge match the configuration and connects the pod to it, by two batches of messages: one
// on the host, one in the pod. After an error the veth is gone; the bridge stays.
func Attach(host *rtnl.Conn, c Config, a Attachment) (ends Ends, err error) {
	if ends.Bridge, err = ensure(host, c, a.Addresses); err != nil {
		return ends, err
	}

	// The kernel takes the peer's namespace as a file descriptor.
	pod, err := blocking.Open(a.Netns, os.O_RDONLY, 0)
	if err != nil {
		return ends, fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = pod.Close() }()

	v := NewPair(c.Network, a)
	v.Master = ends.Bridge.Index
	v.MTU = c.MTU
	v.PeerNamespace = int(pod.Fd())
	if v.MTU == 0 {
		v.MTU = ends.Bridge.MTU
	}

	port := rtnl.SetPort(v.Name, Alias(c.Network, a.Owner), c.Port)
	if err := Connect(host, a, v, port); err != nil {
		return ends, explain(err, c.Name)
	}

	ends.Host = rtnl.Link{Name: v.Name, MAC: v.MAC, MTU: v.MTU}
	ends.Pod = rtnl.Link{Name: v.PeerName, MAC: v.PeerMAC, MTU: v.MTU}

	// The host's end is there, so that what fails from here on has to remove it. The pod's end goes with it.
	err = setVLANs(host, c.VLANs, v.Name)
	if err == nil && !c.PodDown {
		err = namespace.Visit(func() (err error) {
			ends.Pod.Index, err = setUp(c, a)
			return err
		}, a.Netns)
	}
	if err == nil {
		err = Settle(host, v.Name, ends.Bridge.Name)
	}
	if err == nil {
		err = announce(host, c, a, ends)
	}

	if err != nil {
		return ends, errors.Join(err, host.EnsureNoLink(v.Name))
	}

	return ends, nil
}

// NewPair describes the veth of an attachment, without what depends on where it leads.
func NewPair(network string, a Attachment) rtnl.Veth {
	return rtnl.Veth{
		Name:     HostName(network, a.Owner),
		MAC:      hashMAC("host "+a.Owner.String(), nil),
		PeerName: a.Owner.IfName,
		PeerMAC:  podMAC(a),
	}
}

// connectTries is how often a veth is made whose name somebody had. In the way of the second may be one that
// another ADD of the container has made meanwhile.
const connectTries = 3

// Connect creates the veth and changes it further, or leaves nothing. An interface that has its name
// already makes it fail, unless that is one that DEL has cut off.
func Connect(host *rtnl.Conn, a Attachment, v rtnl.Veth, changes ...*netlink.Message) error {
	return connect(host, a, v.Name, func() error { return createVeth(host, v, changes) })
}

// connect is Connect of a pair whose end on the host has a name.
func connect(host *rtnl.Conn, a Attachment, name string, create func() error) (err error) {
	for range connectTries {
		if err = create(); !netlink.IsExist(err) {
			return err
		}

		// Something has the name of one of the two ends, on the host or in the pod.
		old, lookErr := host.LinkByName(name)
		switch {
		case netlink.IsNotExist(lookErr):
			// In the pod, unless it was one that DEL has cut off and that has gone meanwhile, with its
			// namespace.
			const format = "interface %s is there already in network namespace %s"
			err = fmt.Errorf(format, a.Owner.IfName, a.Netns)
		case lookErr != nil:
			return lookErr
		case !isCutOff(old):
			const format = "interface %s of container %s is there already (host's end %s)"
			return fmt.Errorf(format, a.Owner.IfName, a.Owner.ContainerID, name)
		default:
			if err := host.EnsureNoLink(name); err != nil {
				return err
			}
		}
	}

	return err
}

// createVeth creates the pair and changes it, or leaves nothing.
func createVeth(host *rtnl.Conn, v rtnl.Veth, changes []*netlink.Message) error {
	errs, err := host.Do(append([]*netlink.Message{rtnl.NewVeth(v)}, changes...)...)
	if err != nil {
		return err
	}

	// Without the veth the others failed as well, and only say that it is not there.
	if errs[0] != nil {
		return errs[0]
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, host.EnsureNoLink(v.Name))
	}

	return nil
}

// Settle has the kernel see at once that interfaces which are up are connected. It sees it by itself some
// milliseconds later, or up to a second where many change, and drops what they are to send until then
// (net/core/link_watch.c). From Linux 6.8 on it looks when it is asked for an interface; an older one is left
// to itself.
func Settle(c *rtnl.Conn, names ...string) error {
	for _, name := range names {
		if _, err := c.LinkByName(name); err != nil {
			return err
		}
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
