package projection

import (
	"context"
	"fmt"
	"io/fs"
	"maps"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/node/atomicdir"
)

// keys says which keys of an object a volume shows.
type keys struct {
	// items are the keys and their paths; none stands for all keys, each at its own name.
	items []v1.KeyToPath
	mode  fs.FileMode

	// optional objects and keys may be missing.
	optional bool
}

func keysOf(items []v1.KeyToPath, mode fs.FileMode, optional *bool) keys {
	return keys{
		items:    items,
		mode:     mode,
		optional: ptr.Deref(optional, false),
	}
}

// configMap returns the files of a ConfigMap in the pod's namespace.
func (p *Projector) configMap(ctx context.Context, pod *v1.Pod, name string, k keys) (Files, error) {
	object, err := p.Objects.ConfigMap(ctx, pod.Namespace, name)
	if err != nil {
		return k.missing("configmap", name, err)
	}

	data := make(map[string][]byte, len(object.Data)+len(object.BinaryData))
	for key, value := range object.Data {
		data[key] = []byte(value)
	}

	maps.Copy(data, object.BinaryData)
	return k.of("configmap", name, data)
}

// secret returns the files of a Secret in the pod's namespace.
func (p *Projector) secret(ctx context.Context, pod *v1.Pod, name string, k keys) (Files, error) {
	object, err := p.Objects.Secret(ctx, pod.Namespace, name)
	if err != nil {
		return k.missing("secret", name, err)
	}
	return k.of("secret", name, object.Data)
}

// missing is the content for an object that could not be read: nothing, if it is optional and does not exist.
func (k keys) missing(kind, name string, err error) (Files, error) {
	switch {
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%s %q: %w", kind, name, err)
	case k.optional:
		return Files{}, nil
	default:
		return nil, fmt.Errorf("%s %q not found", kind, name)
	}
}

// keyWords are kubelet's names of keys in its errors, which users search for.
var keyWords = map[string]string{"configmap": "config", "secret": "secret"}

// of picks the keys out of an object's data.
func (k keys) of(kind, name string, data map[string][]byte) (Files, error) {
	files := Files{}
	if len(k.items) == 0 {
		for key, value := range data {
			files[key] = atomicdir.File{Data: value, Mode: k.mode}
		}

		return files, nil
	}

	for _, item := range k.items {
		value, ok := data[item.Key]
		switch {
		case ok:
			files[item.Path] = atomicdir.File{Data: value, Mode: itemMode(item.Mode, k.mode)}
		case !k.optional:
			return nil, fmt.Errorf("%s %q: references non-existent %s key: %s",
				kind, name, keyWords[kind], item.Key)
		}
	}

	return files, nil
}
