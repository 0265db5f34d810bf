package netd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/durable"
)

// Install copies the plugin to path, whole or not at all. One that is equal already stays. A plugin that runs
// at that moment keeps its file.
func Install(from, path string) error {
	if err := install(from, path); err != nil {
		return fmt.Errorf("install plugin %s: %w", path, err)
	}
	return nil
}

func install(from, path string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := durable.Sweep(path); err != nil {
		return err
	}
	if isInstalled(path, data) {
		return nil
	}

	return durable.WriteFile(path, data, 0o755)
}

// isInstalled reports whether path is an executable file with the content.
func isInstalled(path string, content []byte) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		return false
	}
	now, err := os.ReadFile(path)
	return err == nil && bytes.Equal(now, content)
}

// publish puts the configuration where the runtime looks for it, if the plugin says that it can serve it. A
// file that is there already stays until the new one is whole. One that allocates addresses which are not
// this node's any more is worse than none: replacing it does not wait for the plugin.
func publish(ctx context.Context, cfg Config, data []byte) (written bool, err error) {
	now, err := os.ReadFile(cfg.confPath())
	if err == nil && bytes.Equal(now, data) {
		return false, nil
	}

	if err != nil || !hasOtherSubnets(now, data) {
		if err := requestStatus(ctx, cfg.Plugin, data); err != nil {
			return false, err
		}
	}

	if err := os.MkdirAll(cfg.ConfDir, 0o755); err != nil {
		return false, err
	}
	if err := durable.WriteFile(cfg.confPath(), data, 0o644); err != nil {
		return false, err
	}

	return true, nil
}

// hasOtherSubnets reports whether a configuration of ours allocates addresses of other subnets than the
// wanted one.
func hasOtherSubnets(now, wanted []byte) bool {
	a, err := parseConfig(now)
	if err != nil || a.IPAM == nil {
		return false
	}
	b, err := parseConfig(wanted)
	if err != nil || b.IPAM == nil {
		return false
	}
	return !slices.Equal(a.IPAM.Subnets, b.IPAM.Subnets)
}

// sortsBefore returns the name of the first network configuration that runtimes take before ours, "" if there
// is none. They take the first in the order of names.
func sortsBefore(cfg Config) string {
	entries, err := os.ReadDir(cfg.ConfDir)
	if err != nil {
		return ""
	}

	for _, e := range entries {
		if e.Name() >= cfg.ConfName {
			return ""
		}

		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			return e.Name()
		}
	}

	return ""
}

const (
	statusTimeout = 10 * time.Second
	// statusGrace is how long a child of a killed plugin may hold the output open.
	statusGrace = time.Second
)

// requestStatus runs the plugin's STATUS with the one plugin of the list, as a runtime would (CNI
// specification, section 2, STATUS). It returns the plugin's error.
func requestStatus(ctx context.Context, plugin string, list []byte) error {
	stdin, err := pluginConfig(list)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()

	// STATUS has no container: the environment is the verb and the plugin's directory.
	c := exec.CommandContext(ctx, plugin)
	c.Env = append(os.Environ(), "CNI_COMMAND=STATUS", "CNI_PATH="+filepath.Dir(plugin))
	c.Stdin = bytes.NewReader(stdin)
	c.WaitDelay = statusGrace
	out, err := c.Output()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("STATUS of plugin %s: no answer within %s", plugin, statusTimeout)
	}

	var answer struct{ Msg, Details string }
	if json.Unmarshal(out, &answer) == nil && answer.Msg != "" {
		text := strings.TrimSuffix(answer.Msg+": "+answer.Details, ": ")
		return fmt.Errorf("STATUS of plugin %s: %s", plugin, text)
	}

	return fmt.Errorf("STATUS of plugin %s: %w", plugin, err)
}
