package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/node/atomicdir"
	"github.com/trivet-node/trivet/node/podenv"
)

// Directory names of kubelet's plugins.
const (
	configMapPlugin = "kubernetes.io~configmap"
	secretPlugin    = "kubernetes.io~secret"
	downwardPlugin  = "kubernetes.io~downward-api"
	projectedPlugin = "kubernetes.io~projected"
)

const defaultMode = 0o644

type files = map[string]atomicdir.File

// content writes a volume that is made of API objects. Those that can hold secrets are in memory, never on
// disk.
func (m *Manager) content(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (string, error) {
	plugin, payload, err := m.payload(ctx, pod, vol)
	if err != nil {
		return "", err
	}

	dir := m.volumeDir(pod.UID, plugin, vol.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}

	if plugin != configMapPlugin {
		if err := ensureTmpfs(dir, "0755", m.memorySize(pod, nil)); err != nil {
			return "", err
		}
	}

	owner := atomicdir.Owner{GID: fsGroup(pod)}
	if err := ownRoot(dir, owner.GID); err != nil {
		return "", err
	}

	_, err = atomicdir.Write(dir, payload, owner)
	return dir, err
}

// ownRoot opens the volume's root to all who may see the pod's directory, and gives it to the fsGroup.
func ownRoot(dir string, gid *int64) error {
	mode := fs.FileMode(0o777)
	if gid != nil {
		if err := os.Lchown(dir, 0, int(*gid)); err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}
		mode |= fs.ModeSetgid
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	return nil
}

func (m *Manager) payload(
	ctx context.Context,
	pod *v1.Pod,
	vol *v1.Volume,
) (plugin string, out files, err error) {
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		out, err = m.configMap(ctx, pod, s.Name, s.Items, mode(s.DefaultMode), s.Optional)
		return configMapPlugin, out, err

	case vol.Secret != nil:
		s := vol.Secret
		out, err = m.secret(ctx, pod, s.SecretName, s.Items, mode(s.DefaultMode), s.Optional)
		return secretPlugin, out, err

	case vol.DownwardAPI != nil:
		out, err = m.downward(pod, vol.DownwardAPI.Items, mode(vol.DownwardAPI.DefaultMode))
		return downwardPlugin, out, err
	default:
		out, err = m.projected(ctx, pod, vol)
		return projectedPlugin, out, err
	}
}

func mode(m *int32) fs.FileMode {
	if m == nil {
		return defaultMode
	}
	return fs.FileMode(*m).Perm()
}

func (m *Manager) configMap(
	ctx context.Context,
	pod *v1.Pod,
	name string,
	items []v1.KeyToPath,
	mode fs.FileMode,
	optional *bool,
) (files, error) {
	cm, err := m.cfg.Objects.ConfigMap(ctx, pod.Namespace, name)
	if err != nil {
		return absent("configmap", name, err, optional)
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	return project("configmap", name, data, items, mode, optional)
}

func (m *Manager) secret(
	ctx context.Context,
	pod *v1.Pod,
	name string,
	items []v1.KeyToPath,
	mode fs.FileMode,
	optional *bool,
) (files, error) {
	s, err := m.cfg.Objects.Secret(ctx, pod.Namespace, name)
	if err != nil {
		return absent("secret", name, err, optional)
	}
	return project("secret", name, s.Data, items, mode, optional)
}

// absent is the content for an object that could not be had: nothing, if it is optional and does not exist.
func absent(kind, name string, err error, optional *bool) (files, error) {
	switch {
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%s %q: %w", kind, name, err)
	case optional != nil && *optional:
		return files{}, nil
	default:
		return nil, fmt.Errorf("%s %q not found", kind, name)
	}
}

// project picks the items out of an object's data, or all of it.
func project(
	kind, name string,
	data map[string][]byte,
	items []v1.KeyToPath,
	mode fs.FileMode,
	optional *bool,
) (files, error) {
	out := files{}
	if len(items) == 0 {
		for k, v := range data {
			out[k] = atomicdir.File{Data: v, Mode: mode}
		}

		return out, nil
	}

	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}

			return nil, fmt.Errorf("%s references non-existent %s key: %s", kind, name, item.Key)
		}

		out[item.Path] = atomicdir.File{Data: value, Mode: itemMode(item.Mode, mode)}
	}

	return out, nil
}

func itemMode(own *int32, fallback fs.FileMode) fs.FileMode {
	if own == nil {
		return fallback
	}
	return mode(own)
}

func (m *Manager) downward(
	pod *v1.Pod,
	items []v1.DownwardAPIVolumeFile,
	fallback fs.FileMode,
) (files, error) {
	out := files{}
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = podenv.Field(pod, item.FieldRef.FieldPath, m.cfg.Node(), nil)
		case item.ResourceFieldRef != nil:
			value, err = podenv.Resource(pod, "", item.ResourceFieldRef, m.cfg.Node())
		default:
			err = errors.New("it has no fieldRef and no resourceFieldRef")
		}

		if err != nil {
			return nil, fmt.Errorf("downward API item %s: %w", item.Path, err)
		}

		out[item.Path] = atomicdir.File{Data: []byte(value), Mode: itemMode(item.Mode, fallback)}
	}

	return out, nil
}

// projected joins its sources; where two have the same path, the later one wins.
func (m *Manager) projected(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (files, error) {
	out := files{}
	fallback := mode(vol.Projected.DefaultMode)
	for i := range vol.Projected.Sources {
		s := &vol.Projected.Sources[i]
		var part files
		var err error
		switch {
		case s.ConfigMap != nil:
			part, err = m.configMap(
				ctx,
				pod,
				s.ConfigMap.Name,
				s.ConfigMap.Items,
				fallback,
				s.ConfigMap.Optional,
			)

		case s.Secret != nil:
			part, err = m.secret(ctx, pod, s.Secret.Name, s.Secret.Items, fallback, s.Secret.Optional)
		case s.DownwardAPI != nil:
			part, err = m.downward(pod, s.DownwardAPI.Items, fallback)
		case s.ServiceAccountToken != nil:
			part, err = m.tokenFile(ctx, pod, vol.Name, s.ServiceAccountToken, fallback)
		case s.ClusterTrustBundle != nil:
			part, err = m.trustFile(ctx, pod, s.ClusterTrustBundle, fallback)
		default:
			err = fmt.Errorf("projected source %d is of a type that this agent does not serve "+
				"(podCertificate is not)", i)
		}

		if err != nil {
			return nil, err
		}

		maps.Copy(out, part)
	}

	return out, nil
}
