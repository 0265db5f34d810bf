package seat

import (
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// TestConfigurationBehindALinkStaysThere has the mode of the file, too.
func TestConfigurationBehindALinkStaysThere(t *testing.T) {
	m, host := newMachine(t)
	const target = "/etc/kubernetes/kubelet.yaml"
	m.put(target, kubeletConfig)
	err := os.Chmod(m.root+target, 0o640)
	if err == nil {
		err = os.Remove(m.root + agentConfig)
	}
	if err == nil {
		err = os.Symlink("../../../etc/kubernetes/kubelet.yaml", m.root+agentConfig)
	}
	if err != nil {
		t.Fatal(err)
	}

	arrange(t, m, Runtime{host}, "v1")
	if got := m.read(target); !strings.Contains(got, criEndpoint) {
		t.Errorf("configuration %q", got)
	}
	arrange(t, m, Runtime{host}, swap.Out)
	info, err := os.Stat(m.root + target)
	if err != nil || info.Mode().Perm() != 0o640 || m.read(target) != kubeletConfig {
		t.Errorf("mode %v, %v, configuration %q", info.Mode(), err, m.read(target))
	}
	if _, err := os.Readlink(m.root + agentConfig); err != nil {
		t.Error(err)
	}
}
