package scenario

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs"
)

// TestSmokeSpecs runs specs of the published e2e.test against the cluster, each shown as a test of its own.
func TestSmokeSpecs(t *testing.T) {
	c := open(t)
	bin := filepath.Join(c.root, ".trivet", "bin")
	names := specs.Smoke()
	results, err := specs.Run(t.Context(), specs.Config{
		Suite: filepath.Join(bin, "e2e.test"), Kubectl: filepath.Join(bin, "kubectl"), Ginkgo: filepath.Join(bin, "ginkgo"), Procs: 4,
		Kubeconfig: filepath.Join(c.root, ".trivet", "kubeconfig"), ReportDir: filepath.Join(c.root, ".trivet", "specs"), Names: names,
	}, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			if r.Outcome != specs.Passed {
				t.Errorf("%s: %s", r.Outcome, r.Message)
			}
		})
	}
}
