package podworker_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/podworker"
)

func TestLogsOfPodsThatAreGoneAreRemoved(t *testing.T) {
	root := t.TempDir()
	w := &podworker.Worker{}
	w.Node = criconfig.Node{LogRoot: filepath.Join(root, "none")}
	if err := w.OrphanLogs(func(types.UID) bool { return false }); err != nil {
		t.Errorf("before there are any logs: %v", err)
	}
	w.Node.LogRoot = root
	for _, d := range []string{"ns_live_u1/c", "ns_gone_u2/c", "ns_half-gone_u3", "something else"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.OrphanLogs(func(uid types.UID) bool { return uid == "u1" }); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"ns_live_u1", "something else"}, names); diff != "" {
		t.Error(diff)
	}
}
