// Package podenv makes the environment of a container: service variables, envFrom, and env of all kinds, in
// kubelet's order and with kubelet's $(NAME) expansion; and the downward API's field and resource values,
// which volumes use too.
package podenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// Variable is one environment variable.
type Variable struct{ Name, Value string }

// Source is where the values of references come from (objects.Cache).
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// Services waits for the API server's list, or takes what is known of it.
	Services(ctx context.Context, namespace string, wait bool) ([]*v1.Service, error)
}

// Files reads a key of an env file (fileKeyRef) in one of the pod's volumes (volume.Mounter).
type Files interface {
	EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error)
}

// Request says for which container the environment is made.
type Request struct {
	Pod       *v1.Pod
	Container *v1.Container

	// PodIPs are the addresses of the running sandbox, the primary one first.
	PodIPs []string
	Node   Node
	Source Source

	// Files may be nil when the container has no fileKeyRef.
	Files Files

	// Static pods do not wait for the API server, which may be one of them: they get what services are known.
	Static bool
}

// Make returns the container's environment in a stable order: service variables first, then envFrom, then
// env; a later value of a name replaces an earlier one. An error says which variable has no value (kubelet's
// CreateContainerConfigError).
func Make(ctx context.Context, r Request) ([]Variable, error) {
	b := builder{Request: r, values: map[string]string{}, services: map[string]string{}}
	if err := b.addServices(ctx); err != nil {
		return nil, err
	}
	if err := b.addFrom(ctx); err != nil {
		return nil, err
	}

	for i := range r.Container.Env {
		if err := b.addVariable(ctx, &r.Container.Env[i]); err != nil {
			return nil, err
		}
	}

	return b.result(), nil
}

// builder collects the variables of one container.
type builder struct {
	Request

	// order are the names of values in the order in which they were set first.
	order    []string
	values   map[string]string
	services map[string]string
}

// set sets a variable, which keeps its place if it was set before.
func (b *builder) set(name, value string) {
	if _, ok := b.values[name]; !ok {
		b.order = append(b.order, name)
	}

	b.values[name] = value
}

// lookup is what $(NAME) refers to: variables before this one, then service variables.
func (b *builder) lookup(name string) (string, bool) {
	if v, ok := b.values[name]; ok {
		return v, true
	}
	v, ok := b.services[name]
	return v, ok
}

// result returns the variables in the order that Make promises.
func (b *builder) result() []Variable {
	var out []Variable
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		if _, ok := b.values[name]; !ok {
			out = append(out, Variable{name, b.services[name]})
		}
	}

	for _, name := range b.order {
		out = append(out, Variable{name, b.values[name]})
	}

	return out
}

// addServices adds the variables of the services in the pod's namespace (enableServiceLinks) and of the API
// server's service.
func (b *builder) addServices(ctx context.Context) error {
	all, err := b.Source.Services(ctx, v1.NamespaceDefault, !b.Static)
	if err != nil {
		return fmt.Errorf("service variables: %w", err)
	}

	for _, s := range all {
		if s.Name == "kubernetes" {
			serviceVariables(b.services, s)
		}
	}

	if !ptr.Deref(b.Pod.Spec.EnableServiceLinks, v1.DefaultEnableServiceLinks) {
		return nil
	}

	services, err := b.Source.Services(ctx, b.Pod.Namespace, !b.Static)
	if err != nil {
		return fmt.Errorf("service variables: %w", err)
	}

	for _, s := range services {
		serviceVariables(b.services, s)
	}

	return nil
}

// addFrom adds the variables of envFrom, each source in the order of its keys.
func (b *builder) addFrom(ctx context.Context) error {
	for _, from := range b.Container.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			ref := from.ConfigMapRef
			cm, err := b.Source.ConfigMap(ctx, b.Pod.Namespace, ref.Name)
			if missing(err, ref.Optional) {
				continue
			}
			if err != nil {
				return objectError("configmap", ref.Name, err)
			}

			for _, k := range slices.Sorted(maps.Keys(cm.Data)) {
				b.set(from.Prefix+k, cm.Data[k])
			}

		case from.SecretRef != nil:
			ref := from.SecretRef
			s, err := b.Source.Secret(ctx, b.Pod.Namespace, ref.Name)
			if missing(err, ref.Optional) {
				continue
			}
			if err != nil {
				return objectError("secret", ref.Name, err)
			}

			for _, k := range slices.Sorted(maps.Keys(s.Data)) {
				b.set(from.Prefix+k, string(s.Data[k]))
			}
		}
	}

	return nil
}

// addVariable adds one variable of env.
func (b *builder) addVariable(ctx context.Context, e *v1.EnvVar) error {
	if e.ValueFrom == nil {
		b.set(e.Name, Expand(e.Value, b.lookup))
		return nil
	}

	value, ok, err := b.reference(ctx, e.ValueFrom)
	if err != nil {
		return fmt.Errorf("environment variable %s: %w", e.Name, err)
	}
	if ok {
		b.set(e.Name, value)
	}

	return nil
}

// reference returns the value of a valueFrom. ok is false for an optional one that does not exist.
func (b *builder) reference(ctx context.Context, from *v1.EnvVarSource) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = Field(b.Pod, from.FieldRef.FieldPath, b.Node, b.PodIPs)
	case from.ResourceFieldRef != nil:
		value, err = Resource(b.Pod, b.Container.Name, from.ResourceFieldRef, b.Node)
	case from.ConfigMapKeyRef != nil:
		return b.configMapKey(ctx, from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return b.secretKey(ctx, from.SecretKeyRef)
	case from.FileKeyRef != nil:
		return b.fileKey(from.FileKeyRef)
	default:
		err = errors.New("valueFrom names a source that this agent does not know")
	}

	return value, err == nil, err
}

func (b *builder) configMapKey(ctx context.Context, ref *v1.ConfigMapKeySelector) (string, bool, error) {
	cm, err := b.Source.ConfigMap(ctx, b.Pod.Namespace, ref.Name)
	if missing(err, ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, objectError("configmap", ref.Name, err)
	}

	value, ok := cm.Data[ref.Key]
	if !ok && !ptr.Deref(ref.Optional, false) {
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v",
			ref.Key, b.Pod.Namespace, ref.Name)
	}

	return value, ok, nil
}

func (b *builder) secretKey(ctx context.Context, ref *v1.SecretKeySelector) (string, bool, error) {
	s, err := b.Source.Secret(ctx, b.Pod.Namespace, ref.Name)
	if missing(err, ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, objectError("secret", ref.Name, err)
	}

	value, ok := s.Data[ref.Key]
	if !ok && !ptr.Deref(ref.Optional, false) {
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v",
			ref.Key, b.Pod.Namespace, ref.Name)
	}

	return string(value), ok, nil
}

func (b *builder) fileKey(ref *v1.FileKeySelector) (string, bool, error) {
	if b.Files == nil {
		return "", false, errors.New("fileKeyRef is not available here")
	}

	values, err := b.Files.EnvFile(b.Pod, ref.VolumeName, ref.Path)
	if err != nil {
		if ptr.Deref(ref.Optional, false) {
			return "", false, nil
		}

		return "", false, err
	}

	value, ok := values[ref.Key]
	if !ok && !ptr.Deref(ref.Optional, false) {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q of volume %q",
			ref.Key, ref.Path, ref.VolumeName)
	}

	return value, ok, nil
}

// missing reports whether an object does not exist and is optional.
func missing(err error, opt *bool) bool { return ptr.Deref(opt, false) && apierrors.IsNotFound(err) }

// objectError returns the error of an object that cannot be read. Users search for kubelet's words for one
// that does not exist.
func objectError(kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %q not found", kind, name)
	}
	return fmt.Errorf("%s %q: %w", kind, name, err)
}
