package part

import "context"

// DropIn is trivet-node in kubelet's place on a node whose image has both: a drop-in of kubelet's service
// says which of them runs. It is in its seat from the start.
type DropIn struct {
	Cluster Cluster
	Node    string
}

func (p DropIn) String() string { return "trivet-node on " + p.Node }

// NodeDropIn is the file of the drop-in, which the node's image has.
const NodeDropIn = "/etc/systemd/system/kubelet.service.d/90-trivet-node.conf"

// Programs of such a node.
const (
	TrivetNode = "/usr/local/bin/trivet-node"
	Kubelet    = "/usr/bin/kubelet"
)

// Install returns when trivet-node works. Containers that were restarted are an error.
func (p DropIn) Install(ctx context.Context) error {
	return p.exchange(ctx, TrivetNode, "[ -e "+NodeDropIn+" ] || mv "+NodeDropIn+".off "+NodeDropIn)
}

// Remove returns when kubelet works. Containers that were restarted are an error.
func (p DropIn) Remove(ctx context.Context) error {
	return p.exchange(ctx, Kubelet, "[ ! -e "+NodeDropIn+" ] || mv "+NodeDropIn+" "+NodeDropIn+".off")
}

// Restart returns when trivet-node works after a restart of its service, as after an upgrade. Containers that
// were restarted are an error.
func (p DropIn) Restart(ctx context.Context) error {
	agent := Agent{Cluster: p.Cluster, Node: p.Node}
	return agent.exchange(ctx, TrivetNode, func(ctx context.Context) error {
		_, err := p.Cluster.OnNode(ctx, p.Node, "systemctl daemon-reload\nsystemctl restart kubelet")
		return err
	})
}

// exchange moves the drop-in by a script, and restarts the service where that changes its program.
func (p DropIn) exchange(ctx context.Context, program, script string) error {
	agent := Agent{Cluster: p.Cluster, Node: p.Node}
	return agent.exchange(ctx, program, func(ctx context.Context) error {
		_, err := p.Cluster.OnNode(ctx, p.Node, script+`
			systemctl daemon-reload
			pid=$(systemctl show --property=MainPID --value kubelet)
			[ "$(readlink "/proc/$pid/exe")" = `+program+` ] || systemctl restart kubelet`)
		return err
	})
}
