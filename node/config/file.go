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
		case served[name] == nil:
			unserved = append(unserved, name)
			delete(all, name)
		case zero(all[name], served[name]): // kubeadm writes zero values, meaning the default
			delete(all, name)
		}
	}
	rest, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return unserved, json.Unmarshal(rest, &c.Kubelet)
}

// zero tells whether a value means "not set" in KubeletConfiguration: zero does, but for fields that tell zero from nothing (healthzPort: 0).
func zero(v json.RawMessage, field reflect.Type) bool {
	switch string(v) {
	case `null`:
		return true
	case `""`, `"0s"`, `0`, `{}`:
		return field.Kind() != reflect.Pointer
	}
	return false
}

func servedFields() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	t := reflect.TypeFor[Kubelet]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = t.Field(i).Type
	}
	return out
}
