package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Load lays a KubeletConfiguration file over the configuration. Fields that are not served are returned: they have no effect.
func (c *Config) Load(path string) (unserved []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if unserved, err = c.apply(data); err != nil {
		return nil, fmt.Errorf("kubelet configuration %s: %w", path, err)
	}
	return unserved, nil
}

func (c *Config) apply(data []byte) (unserved []string, err error) {
	var kind struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(data, &kind); err != nil {
		return nil, err
	}
	if kind.Kind != "KubeletConfiguration" || kind.APIVersion != "kubelet.config.k8s.io/v1beta1" {
		return nil, fmt.Errorf("want kubelet.config.k8s.io/v1beta1 KubeletConfiguration, it is %q %q", kind.APIVersion, kind.Kind)
	}
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &all); err != nil {
		return nil, err
	}
	served := servedFields()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch {
		case name == "kind" || name == "apiVersion":
		case !served[name]:
			unserved = append(unserved, name)
			delete(all, name)
		case zero(all[name]): // kubeadm writes zero values, meaning the default
			delete(all, name)
		}
	}
	rest, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return unserved, json.Unmarshal(rest, &c.Kubelet)
}

// zero tells whether a value means "not set" in KubeletConfiguration.
func zero(v json.RawMessage) bool {
	switch string(v) {
	case `null`, `""`, `"0s"`, `0`, `{}`:
		return true
	}
	return false
}

func servedFields() map[string]bool {
	out := map[string]bool{}
	t := reflect.TypeFor[Kubelet]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = true
	}
	return out
}
