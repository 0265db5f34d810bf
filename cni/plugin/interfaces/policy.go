package interfaces

import (
	"context"
	"net/netip"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/internal/undo"
)

// heldPod is a pod that waits for its network policies; nil for one that does not.
type heldPod struct {
	network   hold.Network
	addresses []netip.Addr
	call      *call.Call
}

// holdPod records whose the addresses are, where network policies may matter, and keeps them from sending and
// receiving if their namespace has policies. The interface is not there yet.
func holdPod(c *call.Call, n *conf.Network, addresses []netip.Addr, back *undo.Stack) (*heldPod, error) {
	pod := n.Runtime.Pod
	if !n.Policy || pod.Name == "" || len(addresses) == 0 {
		return nil, nil
	}

	pool, err := n.Pool.Create()
	if err != nil {
		return nil, err
	}

	network := hold.Network{Name: n.Bridge.Network, Pool: pool}
	back.Push("forget pod", func(context.Context) error { return network.End(c.Owner) })
	held, err := network.Begin(hold.Record{
		Owner:     c.Owner,
		Namespace: pod.Namespace,
		Pod:       pod.Name,
		UID:       pod.UID,
		Addresses: addresses,
	})
	if err != nil || !held {
		return nil, err
	}

	return &heldPod{network: network, addresses: addresses, call: c}, nil
}

// await waits until the pod's rules are written, if trivet-netd is there to do so.
func (p *heldPod) await() error {
	if p == nil {
		return nil
	}
	defer p.call.Steps.Begin("wait for network policies")()
	return p.network.Await(p.addresses)
}

// forget forgets whose the addresses of an attachment were.
func forget(c *call.Call, t *conf.Teardown, pool *ipam.Pool) error {
	if pool == nil {
		return nil
	}
	return hold.Network{Name: t.Network, Pool: pool}.End(c.Owner)
}

// keepPods forgets the pods that the runtime does not have.
func keepPods(t *conf.Teardown, pool *ipam.Pool) error {
	if pool == nil {
		return nil
	}
	return hold.Network{Name: t.Network, Pool: pool}.Keep(t.Valid.Has)
}
