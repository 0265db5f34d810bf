package podworker_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestFilesOfTheNodeAreReadForEachPod(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	var version atomic.Int32
	c.host.HostDNS = func() (criconfig.DNS, error) {
		return criconfig.DNS{Servers: []string{fmt.Sprint("192.0.2.", version.Load())}}, nil
	}
	c.secretsOf = func() ([]byte, error) {
		const text = `{"auths": {"registry.example": {"username": "u%d", "password": "p"}}}`
		return fmt.Appendf(nil, text, version.Load()), nil
	}

	c.start(s, t.TempDir())
	for i := range int32(2) {
		version.Store(i)
		pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "registry.example/app"})
		pod.Spec.Containers[0].ImagePullPolicy = v1.PullAlways
		pod.UID = types.UID(fmt.Sprint("uid-", i))
		c.put(pod)
		c.waitFor(pod.UID, "ready", ready)
	}

	if got := s.Resolvers(); !slices.Equal(got, []string{"192.0.2.0", "192.0.2.1"}) {
		t.Errorf("name servers of the pods: %q", got)
	}
	if got := s.Users(); !slices.Equal(got, []string{"u0", "u1"}) {
		t.Errorf("images are pulled as %q", got)
	}
}
