package config

import (
	"errors"
	"fmt"
	"io/fs"

	"sigs.k8s.io/yaml"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// maxKubeletConfig is more than a configuration of kubelet has.
const maxKubeletConfig = 1 << 20

// Driver is the cgroup driver: the configured one, else that of the node's agent. An agent that says nothing,
// or has no such file, means cgroupfs, as KubeletConfiguration has it.
func (c Config) Driver() (string, error) {
	if c.CgroupDriver != "" {
		return c.CgroupDriver, nil
	}

	data, err := boundedfile.ReadLinked(c.KubeletConfig, maxKubeletConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return "cgroupfs", nil
	}
	if err != nil {
		return "", fmt.Errorf("kubelet_config: %w", err)
	}

	var agent struct {
		CgroupDriver string `json:"cgroupDriver"`
	}
	if err := yaml.Unmarshal(data, &agent); err != nil {
		return "", fmt.Errorf("kubelet_config: %s: %w", c.KubeletConfig, err)
	}

	switch agent.CgroupDriver {
	case "":
		return "cgroupfs", nil
	case "cgroupfs", "systemd":
		return agent.CgroupDriver, nil
	}
	return "", fmt.Errorf("kubelet_config: %s: cgroupDriver: %q is neither cgroupfs nor systemd",
		c.KubeletConfig, agent.CgroupDriver)
}
