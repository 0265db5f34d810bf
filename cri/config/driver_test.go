package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDriverIsThatOfTheAgentUnlessConfigured(t *testing.T) {
	for _, c := range []struct{ name, configured, agent, want string }{
		{"configured", "cgroupfs", "cgroupDriver: systemd", "cgroupfs"},
		{"as kubeadm writes it", "", "apiVersion: v1\ncgroupDriver: systemd\n", "systemd"},
		{"quoted", "", `{"cgroupDriver": "systemd"}`, "systemd"},
		{"default of kubelet", "", "clusterDomain: cluster.local\n", "cgroupfs"},
		{"no agent", "", "", "cgroupfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Default()
			cfg.CgroupDriver = c.configured
			cfg.KubeletConfig = filepath.Join(t.TempDir(), "config.yaml")
			if c.agent != "" {
				if err := os.WriteFile(cfg.KubeletConfig, []byte(c.agent), 0o644); err != nil {
					t.Fatal(err)
				}
			}

			if got, err := cfg.Driver(); err != nil || got != c.want {
				t.Errorf("driver %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestDriverThatTheAgentCannotMeanIsRefused(t *testing.T) {
	tooLong := strings.Repeat("#", maxKubeletConfig+1)
	for _, text := range []string{"cgroupDriver: docker", "cgroupDriver: [", tooLong} {
		cfg := Default()
		cfg.KubeletConfig = filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(cfg.KubeletConfig, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}

		if _, err := cfg.Driver(); err == nil || !strings.Contains(err.Error(), "kubelet_config") {
			t.Errorf("%.20s: error %v", text, err)
		}
	}
}
