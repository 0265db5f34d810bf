package manifest

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Pods makes the static pods of a document that may have several, in a PodList. All of them can run, or it is
// an error.
func Pods(data []byte, from Origin) (pods []*v1.Pod, warnings []string, err error) {
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, err
	}

	var list struct {
		Kind, APIVersion string
		Items            []map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, nil, err
	}

	if list.Kind != "PodList" {
		pod, warnings, err := one(string(text), from)
		return []*v1.Pod{pod}, warnings, err
	}

	// The items of a list have no kind of their own.
	for i, item := range list.Items {
		item["kind"], item["apiVersion"] = json.RawMessage(`"Pod"`), json.RawMessage(`"`+list.APIVersion+`"`)
		text, err := json.Marshal(item)
		if err != nil {
			return nil, nil, fmt.Errorf("item %d: %w", i, err)
		}

		pod, found, err := one(string(text), from)
		if err != nil {
			return nil, nil, fmt.Errorf("item %d: %w", i, err)
		}

		pods = append(pods, pod)
		warnings = append(warnings, found...)
	}

	return pods, warnings, nil
}
