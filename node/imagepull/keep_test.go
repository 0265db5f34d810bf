package imagepull

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// keeper removes an image in the moment in which a pod is given it, so many times.
type keeper struct {
	node  *node
	times int
	held  []string
}

func (k *keeper) Hold(id string, pod types.UID) <-chan struct{} {
	if k.times == 0 {
		k.held = append(k.held, id+" for "+string(pod))
		return nil
	}

	k.times--
	k.node.mu.Lock()
	defer k.node.mu.Unlock()
	clear(k.node.images)
	gone := make(chan struct{})
	close(gone)
	return gone
}

func TestAnImageThatIsJustRemovedIsPulledAgainAndThenKept(t *testing.T) {
	k := &keeper{times: 2}
	p, n := newPuller(t, func(cfg *Config) { cfg.Keeper = k })
	k.node = n
	n.images[app] = imageOf(app)

	pod := podIn("a")
	pod.UID = "pod"
	have, err := p.Ensure(t.Context(), pod, container(app, v1.PullIfNotPresent))
	if err != nil || have.ID != "id-"+app {
		t.Fatalf("%+v, %v", have, err)
	}
	if len(n.pulls) != 2 || !slices.Equal(k.held, []string{"id-" + app + " for pod"}) {
		t.Errorf("%d pulls, held %q", len(n.pulls), k.held)
	}
}
