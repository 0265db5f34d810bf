package volume_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// kubelet ran git, with its hooks, on what a tenant names (CVE-2024-10220, CVE-2025-1767).
func TestRepositoriesOfTenantsAreNotCloned(t *testing.T) {
	m, _ := newMounter(t, &api{})
	hooks := t.TempDir()
	source := &v1.GitRepoVolumeSource{Repository: hooks}
	p := pod(v1.Volume{Name: "code", VolumeSource: v1.VolumeSource{GitRepo: source}})
	_, err := m.Setup(t.Context(), p)
	text := fmt.Sprint(err)
	if !strings.Contains(text, `"code"`) || !strings.Contains(text, "not supported") {
		t.Errorf("error %v, want one that names the volume", err)
	}
	if left, err := os.ReadDir(hooks); err != nil || len(left) > 0 {
		t.Errorf("the repository holds %v, %v", left, err)
	}

	must(t, m.Teardown(t.Context(), p.UID))
}
