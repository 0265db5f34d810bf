package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// load reads --config and --config-dir, in this order.
func (c *settings) load(f *Flags) error {
	if path := f.last("config"); path != "" {
		data, err := readFile(path)
		if err != nil {
			return err
		}
		if err := c.replace(data); err != nil {
			return fmt.Errorf("kubelet configuration %s: %w", path, err)
		}
	}

	if dir := f.last("config-dir"); dir != "" {
		return c.dropIns(dir)
	}

	return nil
}

// replace takes a file in the place of all defaults.
func (c *settings) replace(data []byte) error {
	asJSON, err := toJSON(data)
	if err != nil {
		return err
	}
	k, err := decode(asJSON)
	if err != nil {
		return err
	}
	c.Kubelet = *k
	return nil
}

// toJSON refuses keys that are there twice, and what is not a KubeletConfiguration.
func toJSON(data []byte) ([]byte, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}

	var header struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(asJSON, &header); err != nil {
		return nil, err
	}

	if header.Kind != kubeletconfig.Kind || header.APIVersion != kubeletconfig.APIVersion {
		return nil, fmt.Errorf("want %s %s, it is %q %q",
			kubeletconfig.APIVersion, kubeletconfig.Kind, header.APIVersion, header.Kind)
	}

	return asJSON, nil
}

// decode refuses fields that KubeletConfiguration does not have, by their paths, and fills in the defaults.
func decode(asJSON []byte) (*kubeletconfig.Configuration, error) {
	k := &kubeletconfig.Configuration{}
	unknown, err := strict.UnmarshalStrict(asJSON, k)
	if err == nil {
		err = errors.Join(unknown...)
	}
	if err != nil {
		return nil, err
	}
	k.SetDefaults()
	return k, nil
}

// dropIns lays the *.conf files below a directory over the configuration, in the order of their paths, as
// merge patches (RFC 7386).
func (c *settings) dropIns(dir string) error {
	// The patches are laid over JSON, where a field that is not set differs from one that is zero.
	var merged any
	base, err := json.Marshal(c.Kubelet)
	if err == nil {
		err = json.Unmarshal(base, &merged)
	}
	if err != nil {
		return fmt.Errorf("kubelet configuration: %w", err)
	}

	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".conf" {
			return err
		}

		patch, err := readDropIn(path)
		if err != nil {
			return fmt.Errorf("kubelet configuration %s: %w", path, err)
		}

		merged = merge(merged, patch)
		return nil
	})
	if err != nil {
		return fmt.Errorf("--config-dir %s: %w", dir, err)
	}

	all, err := json.Marshal(merged)
	if err != nil {
		return fmt.Errorf("--config-dir %s: %w", dir, err)
	}

	k, err := decode(all)
	if err != nil {
		return fmt.Errorf("--config-dir %s: %w", dir, err)
	}

	c.Kubelet = *k
	return nil
}

// readDropIn reads one file; it is decoded, too, so that an error names the file.
func readDropIn(path string) (patch any, err error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}

	asJSON, err := toJSON(data)
	if err != nil {
		return nil, err
	}
	if _, err := decode(asJSON); err != nil {
		return nil, err
	}

	return patch, json.Unmarshal(asJSON, &patch)
}

// merge applies a merge patch: null removes, objects merge, everything else replaces.
func merge(base, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}

	out, ok := base.(map[string]any)
	if !ok {
		out = map[string]any{}
	}

	for key, value := range changes {
		if value == nil {
			delete(out, key)
			continue
		}

		out[key] = merge(out[key], value)
	}

	return out
}

// maxFile bounds a configuration file; that of a real node has a few KiB.
const maxFile = 1 << 20

// readFile reads a configuration file, which may be a link or a pipe.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	defer f.Close()

	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("kubelet configuration %s: more than %d bytes", path, maxFile)
	}

	return data, nil
}
