package netd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/durable"
)

// publish puts the configuration where the runtime looks for it, if the plugin says that it can serve it. A
// file that is there already stays until the new one is whole; one that gives out addresses which are not
// this node's any more is worse than none, and does not wait for the plugin.
func publish(ctx context.Context, o Options, data []byte) (written bool, err error) {
	now, err := os.ReadFile(o.confPath())
	if err == nil && bytes.Equal(now, data) {
		return false, nil
	}

	if err != nil || !otherSubnets(now, data) {
		if err := askStatus(ctx, o.Plugin, data); err != nil {
			return false, err
		}
	}

	if err := os.MkdirAll(o.ConfDir, 0o755); err != nil {
		return false, err
	}
	if err := durable.WriteFile(o.confPath(), data, 0o644); err != nil {
		return false, err
	}

	return true, nil
}

// otherSubnets reports whether a configuration of ours gives out addresses of other subnets than the wanted
// one.
func otherSubnets(now, wanted []byte) bool {
	a, err := parseConfig(now)
	b, err2 := parseConfig(wanted)
	return err == nil && err2 == nil && a.IPAM != nil && b.IPAM != nil &&
		!slices.Equal(a.IPAM.Subnets, b.IPAM.Subnets)
}

// rivals is the first network configuration that runtimes take before ours (they take the first in the order
// of names), "" if there is none.
func rivals(o Options) string {
	entries, err := os.ReadDir(o.ConfDir)
	if err != nil {
		return ""
	}

	// sorted by name
	for _, e := range entries {
		if e.Name() >= o.ConfName {
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

// askStatus runs the plugin's STATUS with the one plugin of the list, as a runtime would (CNI specification,
// section 2, STATUS).
func askStatus(ctx context.Context, plugin string, list []byte) error {
	stdin, err := pluginConfig(list)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()

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

	var told struct{ Msg, Details string }
	if json.Unmarshal(out, &told) == nil && told.Msg != "" {
		return fmt.Errorf("STATUS of plugin %s: %s",
			plugin, strings.TrimSuffix(told.Msg+": "+told.Details, ": "))
	}

	return fmt.Errorf("STATUS of plugin %s: %w", plugin, err)
}

// pluginConfig is the configuration of the list's first plugin as a runtime hands it over: with name and
// version of the list, and without its capabilities.
func pluginConfig(list []byte) ([]byte, error) {
	var l struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return nil, err
	}
	if len(l.Plugins) == 0 {
		return nil, errors.New("configuration list without plugins")
	}

	p := l.Plugins[0]
	p["cniVersion"], p["name"] = l.CNIVersion, l.Name
	delete(p, "capabilities")
	return json.Marshal(p)
}

// Install copies the plugin to path, whole or not at all; an equal one stays. A plugin that runs at the time
// keeps its file.
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

	now, err := os.ReadFile(path)
	if info, e := os.Stat(path); err == nil && e == nil && bytes.Equal(now, data) &&
		info.Mode().Perm()&0o111 != 0 {
		return nil
	}

	return durable.WriteFile(path, data, 0o755)
}
