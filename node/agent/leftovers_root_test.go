package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/userns"
	"github.com/trivet-node/trivet/node/volume"
)

func TestUsersOfAPodAreNotFreeBeforeItsControlGroupIsGone(t *testing.T) {
	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	const group = "/trivet-test-leftovers"
	t.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(t.Context()), group); err != nil {
			t.Error(err)
		}
	})

	tree, err := podcgroup.New(podcgroup.Config{Host: host, Root: group, Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}

	root := t.TempDir()
	l := leftovers{
		tree:    tree,
		volumes: volume.New(volume.Config{Root: root, Log: slog.New(slog.DiscardHandler)}),
		users:   usersBelow(t, root),
	}
	for uid, hostUsers := range map[types.UID]bool{"mapped": false, "plain": true} {
		pod := &v1.Pod{Spec: v1.PodSpec{HostUsers: &hostUsers}}
		pod.UID = uid
		if err := os.MkdirAll(filepath.Join(root, "pods", string(uid)), 0o750); err != nil {
			t.Fatal(err)
		}
		if _, err := l.users.Of(pod, ""); err != nil {
			t.Fatal(err)
		}
		if err := host.Create(group + "/kubepods/besteffort/pod" + string(uid)); err != nil {
			t.Fatal(err)
		}
	}

	l.expect(t, root, "mapped")
	if err := tree.Remove(t.Context(), "mapped"); err != nil {
		t.Fatal(err)
	}
	l.expect(t, root)
}

// usersBelow gives pods users, with records below a root.
func usersBelow(t *testing.T, root string) *userns.Ranges {
	t.Helper()
	users, err := userns.Open(userns.Config{
		RootDir: root,
		Range:   userns.Range{First: 1 << 16, Length: 1 << 16},
		PerPod:  1 << 16,
		Handlers: func() []v1.NodeRuntimeHandler {
			can := &v1.NodeRuntimeHandlerFeatures{UserNamespaces: new(true)}
			return []v1.NodeRuntimeHandler{{Features: can}}
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return users
}

// expect tears down what no pod has, after which these directories are left, with users.
func (l leftovers) expect(t *testing.T, root string, want ...types.UID) {
	t.Helper()
	if err := l.tearDown(t.Context(), func(types.UID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, err := l.volumes.Pods(); err != nil || !slices.Equal(left, want) {
		t.Errorf("directories of %v, want %v: %v", left, want, err)
	}
	if records, _ := filepath.Glob(root + "/pods/*/userns"); len(records) != len(want) {
		t.Errorf("records %v, want %v", records, want)
	}
	if l.users.Has("mapped") != slices.Contains(want, "mapped") {
		t.Errorf("the users of the pod are free too early, or not at all")
	}
}
