package nodestatus

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/event"
)

// report looks at runtime and machine and sends the status if it has changed or is due. It returns whether it
// was sent, and whether the node is ready.
func (r *Reporter) report(ctx context.Context, due bool) (sent, ready bool, err error) {
	info, runtimeErr := r.runtime.Info(ctx)
	if ctx.Err() != nil {
		return false, false, nil
	}

	node := r.Node()
	if runtimeErr == nil {
		r.givePodCIDRs(ctx, node)
	}

	want := node.Status.DeepCopy()
	if err := r.describe(want, info); err != nil {
		return false, false, err
	}

	r.describeVolumes(want)
	described := !sameDescription(&node.Status, want)
	found := findings(r.cfg.Pressure(), info, runtimeErr)
	changed := apply(want, found, time.Now().Truncate(time.Second))
	ready = isReady(want)
	if !described && !changed && !due {
		r.reportedVolumes(want)
		return false, ready, nil
	}

	if images, err := r.runtime.ListImages(ctx); err == nil {
		want.Images = nodeImages(images, r.cfg.MaxImages)
	}

	// Addresses that have not changed are not sent: the cloud may have set others meanwhile.
	if r.cfg.ExternalCloud && equality.Semantic.DeepEqual(want.Addresses, node.Status.Addresses) {
		want.Addresses = nil
	}

	patch, err := statusPatch(&node.Status, want)
	if err != nil {
		return false, ready, err
	}

	stored, err := r.nodes.Patch(ctx, "", r.cfg.Name, types.StrategicMergePatchType, patch, "status")
	if err != nil {
		return false, ready, err
	}

	r.own.saw(stored)
	r.reportedVolumes(want)
	r.announce(&node.Status, want)
	return true, ready, nil
}

// givePodCIDRs gives the runtime the node's ranges of pod addresses when they have changed. Most runtimes do
// not need them.
func (r *Reporter) givePodCIDRs(ctx context.Context, node *v1.Node) {
	ranges := strings.Join(node.Spec.PodCIDRs, ",")
	if ranges == r.podCIDRs {
		return
	}
	if err := r.runtime.UpdatePodCIDR(ctx, ranges); err != nil {
		r.cfg.Log.Warn("the runtime does not take the pod CIDRs", "ranges", ranges, "err", err)
	}
	r.podCIDRs = ranges
}

// announce records which conditions of the node have changed, as kubelet does: NodeReady,
// NodeHasInsufficientMemory.
func (r *Reporter) announce(before, after *v1.NodeStatus) {
	for _, kind := range ownConditions {
		was, is := findCondition(before, kind), findCondition(after, kind)
		if is == nil || was != nil && was.Status == is.Status {
			continue
		}

		reason := "Node" + strings.TrimPrefix(is.Reason, "Kubelet")
		text := "Node " + r.cfg.Name + " status is now: " + reason
		r.events.Record(event.Node(r.cfg.Name), v1.EventTypeNormal, reason, text)
	}
}

// describeVolumes enters the volumes in use. As long as they are not known, what an earlier agent has entered
// stays.
func (r *Reporter) describeVolumes(want *v1.NodeStatus) {
	if r.cfg.InUse == nil {
		want.VolumesInUse = nil
		return
	}
	if names, known := r.cfg.InUse.Names(want.VolumesInUse); known {
		want.VolumesInUse = names
	}
}

// reportedVolumes says that the API shows the volumes in use of a status.
func (r *Reporter) reportedVolumes(s *v1.NodeStatus) {
	if r.cfg.InUse != nil {
		r.cfg.InUse.Reported(s.VolumesInUse)
	}
}

// foreign are the parts of a status that are not the agent's.
var foreign = []string{"volumesAttached", "config", "phase"}

// statusPatch is a strategic merge patch that makes of the known status the wanted one, of what a node agent
// owns. Conditions and addresses merge by type, so addresses are replaced as a whole; without any they stay.
func statusPatch(known, want *v1.NodeStatus) ([]byte, error) {
	had, err := ownFields(known)
	if err != nil {
		return nil, err
	}
	fields, err := ownFields(want)
	if err != nil {
		return nil, err
	}

	if all, ok := fields["addresses"].([]any); ok {
		fields["addresses"] = append([]any{map[string]string{"$patch": "replace"}}, all...)
	}
	delete(had, "addresses")
	withdraw(fields, had)

	return json.Marshal(map[string]any{"status": fields})
}

// ownFields are those of a status that are the agent's.
func ownFields(s *v1.NodeStatus) (fields map[string]any, err error) {
	own := s.DeepCopy()
	own.Conditions = slices.DeleteFunc(own.Conditions, func(c v1.NodeCondition) bool {
		return !slices.Contains(ownConditions, c.Type)
	})
	data, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}

	err = json.Unmarshal(data, &fields)
	for _, name := range foreign {
		delete(fields, name)
	}
	return fields, err
}

// withdraw has a patch take away what was there, and is not wanted: what a patch does not name stays, such as
// the last image that goes, swap that is off, and what another agent of this node has said.
func withdraw(fields, had map[string]any) {
	for name, before := range had {
		now, isWanted := fields[name]
		if !isWanted {
			fields[name] = nil
			continue
		}

		inner, isObject := now.(map[string]any)
		if was, wasObject := before.(map[string]any); isObject && wasObject {
			withdraw(inner, was)
		}
	}
}
