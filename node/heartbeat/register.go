package heartbeat

import (
	"context"
	"encoding/json"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// register makes the Node, or takes over the one that is there and corrects its labels.
func (h *Heart) register(ctx context.Context) error {
	want, err := h.initial(ctx)
	if err != nil {
		return err
	}

	out := &v1.Node{}
	if h.cfg.Register {
		err = h.core.Post().Resource("nodes").Body(want).Do(ctx).Into(out)
		if err == nil {
			h.Saw(out)
			h.log.Info("node registered", "node", h.cfg.Name)
			return nil
		}

		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}

	if err := h.core.Get().Resource("nodes").Name(h.cfg.Name).Do(ctx).Into(out); err != nil {
		return err
	}

	stale := staleHint(out, want)
	patch, err := metadataPatch(want, stale)
	if err != nil {
		return err
	}

	if h.cfg.Register && (stale || !contains(out.Labels, want.Labels) ||
		!contains(out.Annotations, want.Annotations)) {
		request := h.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(h.cfg.Name)
		if err := request.Body(patch).Do(ctx).Into(out); err != nil {
			return err
		}
	}

	h.Saw(out)
	return nil
}

// staleHint reports whether the Node still has the hint to a cloud that this agent does not give any more.
func staleHint(have, want *v1.Node) bool {
	return have.Annotations[providedIPs] != "" && want.Annotations[providedIPs] == ""
}

// metadataPatch sets labels and annotations, and removes the hint to a cloud.
func metadataPatch(want *v1.Node, stale bool) ([]byte, error) {
	annotations := map[string]any{}
	for key, value := range want.Annotations {
		annotations[key] = value
	}
	if stale {
		annotations[providedIPs] = nil
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"labels": want.Labels,
		"annotations": annotations}})
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// Refresh gets the Node from the API, for one who cannot wait for the watch. If it cannot be had, the known
// one counts. Those who ask while it is being got, which may have begun too early for them, share the next
// answer.
func (h *Heart) Refresh(ctx context.Context) {
	asked := time.Now()
	h.refreshing.Lock()
	defer h.refreshing.Unlock()

	if h.refreshed.After(asked) {
		return
	}

	h.refreshed = time.Now()

	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	node := &v1.Node{}
	if err := h.core.Get().Resource("nodes").Name(h.cfg.Name).Do(ctx).Into(node); err != nil {
		h.log.Debug("get node", "node", h.cfg.Name, "err", err)
		return
	}

	h.Saw(node)
}

// Known is the Node as last seen, or, as long as the API has shown none, what it will be registered with.
func (h *Heart) Known() *v1.Node {
	if n := h.Node(); n != nil {
		return n
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: h.cfg.Name, Labels: h.labels()},
		Spec:       v1.NodeSpec{Taints: h.taints()},
	}
}
