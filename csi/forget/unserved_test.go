package forget_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// unserved has the lines that were logged about groups that are not served.
type unserved struct {
	mu    sync.Mutex
	lines []string
}

func (u *unserved) Write(line []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if strings.Contains(string(line), "is not served") {
		u.lines = append(u.lines, string(line))
	}
	return len(line), nil
}

func (u *unserved) all() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lines
}

// newClusterOfOldKinds has a node that is gone, group snapshots of some versions, and of snapshots nothing.
func newClusterOfOldKinds(t *testing.T, versions ...string) (*fixture, *unserved) {
	t.Helper()
	f := newFixture(t)
	kubetest.Serve(f.Server, groupv1.GroupName, versions...)
	for _, resource := range []string{"volumegroupsnapshotcontents", "volumesnapshotcontents"} {
		missing := apierrors.NewNotFound(schema.GroupResource{}, "kind")
		f.FailOn("list "+resource, -1, missing)
		f.FailOn("watch "+resource, -1, missing)
	}

	said := &unserved{}
	f.Log = slog.New(slog.NewTextHandler(said, nil))
	f.forgetter = newForgetter(f.Cluster, f.events)
	return f, said
}

// The contents of group snapshots of an older version stay: it is said that nobody looks after them.
func TestOldKindsAreSaidToBeUnserved(t *testing.T) {
	f, said := newClusterOfOldKinds(t, "v1beta2", "v1beta1")
	if _, err := f.forgetter.Node(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if len(said.all()) != 1 {
		t.Errorf("of one node: %q", said.all())
	}

	f.Put(volumeOn("there", gone))
	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	stop := f.run(10 * time.Millisecond)
	f.Eventually("the line", func() bool { return len(said.all()) == 2 })
	f.Eventually("the end of the volume", func() bool { return f.VolumeNamed("there") == nil })
	stop()

	for _, line := range said.all() {
		for _, part := range []string{"group=" + groupv1.GroupName, "known=v1 ", "v1beta2 v1beta1"} {
			if !strings.Contains(line, part) {
				t.Errorf("%q is not in %s", part, line)
			}
		}
	}
}

func TestServedKindsAreNotNamed(t *testing.T) {
	for _, versions := range [][]string{{"v1", "v1beta2"}, nil} {
		f, said := newClusterOfOldKinds(t, versions...)
		if _, err := f.forgetter.Node(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		if len(said.all()) > 0 || f.VolumeNamed("there") != nil {
			t.Errorf("with %q: %q, or the node is not forgotten", versions, said.all())
		}
	}
}
