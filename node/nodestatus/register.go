package nodestatus

import (
	"context"
	"encoding/json"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What a node and an external cloud provider say to each other (k8s.io/cloud-provider/api).
const (
	// A taint: the cloud has not described the node yet.
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	// An annotation: addresses that the node was given.
	providedIPs = "alpha.kubernetes.io/provided-node-ip"
)

// register creates the Node, or takes over the one that exists and corrects its labels and annotations.
func (r *Reporter) register(ctx context.Context) error {
	want, err := r.initial(ctx)
	if err != nil {
		return err
	}

	if r.cfg.Register {
		made, err := r.nodes.Create(ctx, want)
		if err == nil {
			r.own.saw(made)
			r.reach(Registered)
			r.cfg.Log.Info("node registered", "node", r.cfg.Name)
			return nil
		}

		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}

	// It is there already, of an earlier life of the agent or made by somebody else.
	have, err := r.nodes.Get(ctx, "", r.cfg.Name)
	if err != nil {
		return err
	}

	// Only what the agent owns of it is corrected: others have their own labels and annotations there.
	stale := staleHint(have, want)
	differs := stale || !contains(have.Labels, want.Labels) || !contains(have.Annotations, want.Annotations)
	if r.cfg.Register && differs {
		patch, err := metadataPatch(want, stale)
		if err != nil {
			return err
		}

		have, err = r.nodes.Patch(ctx, "", r.cfg.Name, types.StrategicMergePatchType, patch)
		if err != nil {
			return err
		}
	}

	r.own.saw(have)
	return nil
}

// initial is the Node as it is registered.
func (r *Reporter) initial(ctx context.Context) (*v1.Node, error) {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        r.cfg.Name,
			Labels:      r.cfg.labels(),
			Annotations: r.cfg.annotations(),
		},
		Spec: v1.NodeSpec{ProviderID: r.cfg.ProviderID, Taints: r.cfg.taints()},
	}

	info, runtimeErr := r.runtime.Info(ctx)
	if err := r.describe(&n.Status, info); err != nil {
		return nil, err
	}

	apply(&n.Status, findings(r.cfg.Pressure(), info, runtimeErr), time.Now())
	return n, nil
}

// labels are what the machine is, and those of --node-labels.
func (c *Config) labels() map[string]string {
	out := map[string]string{
		v1.LabelHostname:          c.Hostname,
		v1.LabelOSStable:          "linux",
		v1.LabelArchStable:        goruntime.GOARCH,
		"beta.kubernetes.io/os":   "linux",
		"beta.kubernetes.io/arch": goruntime.GOARCH,
	}
	maps.Copy(out, c.Labels)
	return out
}

// taints are those of a new node. One that a cloud has not described yet keeps pods away until it has.
func (c *Config) taints() []v1.Taint {
	taints := slices.Clone(c.Taints)
	if c.ExternalCloud {
		taints = append(taints, v1.Taint{
			Key:    uninitialized,
			Value:  "true",
			Effect: v1.TaintEffectNoSchedule,
		})
	}
	return taints
}

// annotations are those that the agent owns.
func (c *Config) annotations() map[string]string {
	out := map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	if c.ExternalCloud && len(c.GivenIPs) > 0 {
		out[providedIPs] = strings.Join(c.GivenIPs, ",")
	}
	return out
}

// staleHint reports whether the Node still has the hint to a cloud that this agent does not give any more.
func staleHint(have, want *v1.Node) bool {
	return have.Annotations[providedIPs] != "" && want.Annotations[providedIPs] == ""
}

// metadataPatch sets labels and annotations, and with stale removes the hint to a cloud.
func metadataPatch(want *v1.Node, stale bool) ([]byte, error) {
	annotations := map[string]any{}
	for key, value := range want.Annotations {
		annotations[key] = value
	}
	if stale {
		annotations[providedIPs] = nil
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"labels": want.Labels, "annotations": annotations},
	})
}

// contains reports whether all that is wanted is there.
func contains(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
