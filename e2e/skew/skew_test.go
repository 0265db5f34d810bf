package skew_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/e2e/skew"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestAResultReplacesThatOfItsMinorVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skew.jsonl")
	for _, r := range []skew.Result{
		{Kubernetes: "v1.36.1", Agent: "kubelet", Up: 9, Demo: 20, Date: "2026-11-01"},
		{Kubernetes: "v1.35.4", Agent: "trivet", Failure: "demo: a | b", Date: "2026-11-02"},
		{Kubernetes: "v1.36.3", Agent: "kubelet", Up: 10.2, Demo: 21, Date: "2026-11-03"},
		{Kubernetes: "v1.36.3", Agent: "trivet", Up: 8, Demo: 15, Date: "2026-11-04"},
	} {
		if err := skew.Add(path, r); err != nil {
			t.Fatal(err)
		}
	}

	all, err := skew.Read(path)
	if err != nil {
		t.Fatal(err)
	}

	const want = "| control plane | trivet-node, trivet-cri, trivet-cni, trivet-csi | " +
		"kubelet of that version, trivet-cri, trivet-cni, trivet-csi | tried |\n| --- | --- | --- | --- |\n" +
		"| v1.35.4 | failed: demo: a \\| b | not tried | 2026-11-02 |\n" +
		"| v1.36.3 | works: up in 8 s, demo in 15 s | works: up in 10 s, demo in 21 s | 2026-11-04 |\n"
	if diff := cmp.Diff(want, skew.Table(all)); diff != "" {
		t.Error(diff)
	}
}

func TestNothingWasTriedWithoutAFile(t *testing.T) {
	if all, err := skew.Read(filepath.Join(t.TempDir(), "none")); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestThePageShowsTheResults fails when docs/install.md and what make skew has found differ.
// TRIVET_WRITE_DOCS=1 writes the table.
func TestThePageShowsTheResults(t *testing.T) {
	tried, err := skew.Read("../../docs/data/skew.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Section(t, "../../docs/install.md", "skew", skew.Table(tried))
}
