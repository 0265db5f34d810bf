// Package shaping bounds what a container receives and sends, with the queueing disciplines of upstream's
// bandwidth plugin: a token bucket on the host's end of its veth for what it receives, and one on an ifb
// for what it sends, where an ingress filter leads that.
package shaping

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/undo"
)

// Limit is a rate in bits per second and a burst in bits. The zero value is no limit.
type Limit struct{ Rate, Burst uint64 }

// IsZero reports whether there is no limit.
func (l Limit) IsZero() bool { return l.Rate == 0 }

// latency is how long a packet waits at most, in microseconds.
const latency = 25_000

// ticks is how many ticks of the kernel's packet scheduler a second has (64 ns each).
const ticks = 1e9 / 64

// bucket returns the limit as the kernel has it, as upstream's plugin rounds it. What does not fit into 32
// bits is as much as does, which is minutes: upstream takes the lower 32 bits, and at some rates next to
// nothing is left of a burst of 512 MiB, which runtimes ask for.
func (l Limit) bucket() rtnl.TokenBucket {
	rate := l.Rate / 8
	burst := l.Burst / 8
	micros := math.Floor(float64(burst) * 1e6 / float64(rate))
	return rtnl.TokenBucket{
		Rate:   rate,
		Limit:  atMost32(math.Floor(float64(rate)*latency/1e6) + float64(burst)),
		Buffer: atMost32(micros * ticks / 1e6),
	}
}

func atMost32(x float64) uint32 { return uint32(min(x, math.MaxUint32)) }

// isMet reports whether a bucket is that of the limit. Of a burst that does not fit, upstream has another
// part.
func (l Limit) isMet(b rtnl.TokenBucket) bool {
	want := l.bucket()
	if want.Buffer == math.MaxUint32 {
		b.Buffer = want.Buffer
	}
	return b == want
}

// Pod is whose traffic is bounded.
type Pod struct {
	Network string
	Owner   ipam.Owner
	// Ingress is for what the container receives, Egress for what it sends.
	Ingress, Egress Limit
}

// deviceName returns the name of the ifb. For upstream the interface is not part of it.
func deviceName(network, container string) string {
	sum := sha512.Sum512([]byte(network + container))
	return ("bwp" + hex.EncodeToString(sum[:]))[:unix.IFNAMSIZ-1]
}

// aliasPrefix and an owner's label are the alias of the ifb, by which GC finds whose it is.
func aliasPrefix(network string) string { return "cni-bandwidth:" + ipam.Shorten(network) + ":" }

// Ensure bounds the traffic of the container behind a veth. It returns the ifb; Name is "" when there is
// none. back gets how to undo what it has added, and nothing else: others have filters at the veth, too.
func (p Pod) Ensure(host *rtnl.Conn, veth rtnl.Link, back *undo.Stack) (device rtnl.Link, err error) {
	if !p.Ingress.IsZero() {
		if err := host.Must(rtnl.NewTokenBucket(veth.Index, p.Ingress.bucket())); err != nil {
			return device, explain(err)
		}
		pushDeletion(back, host, rtnl.DeleteTokenBucket(veth.Index))
	}

	if p.Egress.IsZero() {
		return device, nil
	}

	if device, err = p.newDevice(host, veth.MTU, back); err != nil {
		return device, err
	}
	return device, explain(p.redirect(host, veth, device, back))
}

func pushDeletion(back *undo.Stack, host *rtnl.Conn, deletion *netlink.Message) {
	back.Push("limit", func(context.Context) error {
		err := host.Must(deletion)
		if netlink.IsNotExist(err) {
			return nil
		}
		return err
	})
}

// newDevice makes the ifb. The kernel continues after a message that it refuses: one that is there, of
// another attachment of the container, would get the alias of this one.
func (p Pod) newDevice(host *rtnl.Conn, mtu int, back *undo.Stack) (device rtnl.Link, err error) {
	name := deviceName(p.Network, p.Owner.ContainerID)
	_, err = host.LinkByName(name)
	if err == nil {
		const format = "interface %s is there, for what container %s sends by another interface"
		return device, fmt.Errorf(format, name, p.Owner.ContainerID)
	}
	if !netlink.IsNotExist(err) {
		return device, err
	}

	back.Push("limit", func(context.Context) error { return Remove(host, p.Network, p.Owner) })
	err = host.Must(
		rtnl.NewIFB(name, macOf(name), mtu),
		rtnl.SetAlias(name, aliasPrefix(p.Network)+p.Owner.Label()),
	)
	if err != nil {
		return device, explain(err)
	}

	return host.LinkByName(name)
}

// redirect leads what comes in by a veth to an ifb, and bounds what leaves by that.
func (p Pod) redirect(host *rtnl.Conn, veth, device rtnl.Link, back *undo.Stack) error {
	errs, err := host.Do(
		rtnl.NewTokenBucket(device.Index, p.Egress.bucket()),
		rtnl.NewIngress(veth.Index, rtnl.Ingress),
		rtnl.NewRedirect(veth.Index, device.Index),
	)
	if err != nil {
		return err
	}

	// The discipline of somebody else has what he wants in it.
	switch discipline, filter := errs[1], errs[2]; {
	case discipline == nil:
		pushDeletion(back, host, rtnl.DeleteIngress(veth.Index))
	case netlink.IsExist(discipline):
		errs[1] = nil
		if filter == nil {
			pushDeletion(back, host, rtnl.DeleteRedirect(veth.Index))
		}
	}

	return errors.Join(errs...)
}

// explain says what a kernel lacks that does not know a discipline, a filter or a kind of interface.
func explain(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the kernel has no such module: %w", err)
	}
	return err
}

func macOf(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	return net.HardwareAddr{sum[0]&^0x01 | 0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}

// Check returns an error that names the first limit which is not as Ensure set it.
func (p Pod) Check(host *rtnl.Conn, veth rtnl.Link) error {
	if !p.Ingress.IsZero() {
		if err := check(host, veth, p.Ingress); err != nil {
			return err
		}
	}

	if p.Egress.IsZero() {
		return nil
	}

	device, err := host.LinkByName(deviceName(p.Network, p.Owner.ContainerID))
	if err != nil {
		return err
	}

	redirected, err := host.HasRedirect(veth.Index)
	switch {
	case err != nil:
		return err
	case !redirected:
		return fmt.Errorf("what comes in by interface %s is not redirected to %s", veth.Name, device.Name)
	}

	return check(host, device, p.Egress)
}

func check(host *rtnl.Conn, link rtnl.Link, l Limit) error {
	have, ok, err := host.TokenBucketOf(link.Index)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("interface %s has no token bucket", link.Name)
	case !l.isMet(have):
		return fmt.Errorf("the token bucket of interface %s is %+v, not %+v", link.Name, have, l.bucket())
	}
	return nil
}

// Remove removes the ifb of an attachment. None is success. Its name is the container's: one that has the
// alias of another attachment is not this one's, and one without an alias is upstream's.
func Remove(host *rtnl.Conn, network string, owner ipam.Owner) error {
	link, err := host.LinkByName(deviceName(network, owner.ContainerID))
	if netlink.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}

	if link.Alias != "" && link.Alias != aliasPrefix(network)+owner.Label() {
		return nil
	}

	err = host.Must(rtnl.DeleteIndex(link.Index))
	if netlink.IsNotExist(err) {
		return nil
	}

	return err
}

// Keep removes the ifbs of a network whose owner, by its label, is not valid: CNI's GC.
func Keep(host *rtnl.Conn, network string, valid func(label string) bool) error {
	links, err := host.Links()
	if err != nil {
		return err
	}

	return host.DeleteAll(slices.DeleteFunc(links, func(l rtnl.Link) bool {
		label, ours := strings.CutPrefix(l.Alias, aliasPrefix(network))
		return !ours || valid(label)
	}))
}
