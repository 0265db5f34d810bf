package kubetest

import (
	"encoding/json"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

func (s *Server) patch(q query, resource schema.GroupResource, stored document, body []byte) (any, error) {
	if stored == nil {
		stored = &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{
			"name": q.at.Name, "namespace": q.at.Namespace}}}
	}

	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if err := agrees(resource, stored, &unstructured.Unstructured{Object: change}); err != nil {
		return nil, err
	}

	out := &unstructured.Unstructured{}
	if strings.Contains(q.patch, "strategic") {
		changed, err := strategic(q, stored, body)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}

		out.Object = changed
	} else {
		out.Object, _ = merge(stored.DeepCopy().Object, change).(map[string]any)
	}

	s.store(q.at, out)
	return out, nil
}

func strategic(q query, stored document, patch []byte) (map[string]any, error) {
	kind, err := q.kind()
	if err != nil {
		return nil, err
	}

	typed, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, err
	}

	before, err := json.Marshal(stored.Object)
	if err != nil {
		return nil, err
	}

	after, err := strategicpatch.StrategicMergePatch(before, patch, reflect.ValueOf(typed).Elem().Interface())
	if err != nil {
		return nil, err
	}

	var out map[string]any
	return out, json.Unmarshal(after, &out)
}

// merge is a JSON merge patch (RFC 7386).
func merge(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}

	out, ok := target.(map[string]any)
	if !ok {
		out = map[string]any{}
	}

	for name, value := range change {
		if value == nil {
			delete(out, name)
			continue
		}

		out[name] = merge(out[name], value)
	}

	return out
}
