// Package projection computes the files of volumes that are made of API objects: configMap, secret,
// downwardAPI and projected, the last of which joins the others with service account tokens, trust bundles
// and certificates. It reads the objects and writes nothing.
package projection

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/node/atomicdir"
	"github.com/trivet-node/trivet/node/podcertificate"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/token"
)

// Objects is where the contents come from (objects.Cache).
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	ClusterTrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error)
	ClusterTrustBundles(
		ctx context.Context,
		signer string,
		selector labels.Selector,
	) ([]certificatesv1.ClusterTrustBundle, error)
}

// Certificates are those of the podCertificate sources of volumes (podcertificate.Keeper).
type Certificates interface {
	// Volume returns the credentials of a volume by the indexes of its sources.
	Volume(ctx context.Context, pod *v1.Pod, volume *v1.Volume) ([]podcertificate.Credential, error)
}

// Projector computes the files of volumes.
type Projector struct {
	Objects Objects
	Tokens  *token.Cache

	// Certificates may be nil: podCertificate sources are refused then.
	Certificates Certificates

	// Node is what the downward API says about the node.
	Node podenv.Node
}

// Files are the contents of a volume by their paths, which are relative and have slashes.
type Files = map[string]atomicdir.File

// defaultMode is the mode of a file for which neither the volume nor the item names one.
const defaultMode = 0o644

// Files returns what the volume of the pod shows now. The volume is of one of the four types. An object or
// key that does not exist is an error, unless it is optional.
func (p *Projector) Files(ctx context.Context, pod *v1.Pod, volume *v1.Volume) (Files, error) {
	switch {
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		return p.configMap(ctx, pod, s.Name, keysOf(s.Items, mode(s.DefaultMode), s.Optional))
	case volume.Secret != nil:
		s := volume.Secret
		return p.secret(ctx, pod, s.SecretName, keysOf(s.Items, mode(s.DefaultMode), s.Optional))
	case volume.DownwardAPI != nil:
		return p.downward(pod, volume.DownwardAPI.Items, mode(volume.DownwardAPI.DefaultMode))
	case volume.Projected != nil:
		return p.projected(ctx, pod, volume)
	}

	return nil, fmt.Errorf("volume %s is not made of API objects", volume.Name)
}

// projected joins the sources; where two have the same path, the later one wins.
func (p *Projector) projected(
	ctx context.Context,
	pod *v1.Pod,
	volume *v1.Volume,
) (Files, error) {
	issued, err := p.issued(ctx, pod, volume)
	if err != nil {
		return nil, err
	}

	joined, fallback := Files{}, mode(volume.Projected.DefaultMode)
	for i := range volume.Projected.Sources {
		source := &volume.Projected.Sources[i]
		if source.PodCertificate != nil {
			maps.Copy(joined, certificate(pod, source.PodCertificate, issued[i], fallback))
			continue
		}

		part, err := p.source(ctx, pod, source, fallback)
		if errors.Is(err, errUnknownSource) {
			return nil, fmt.Errorf("projected source %d %w", i, err)
		}
		if err != nil {
			return nil, err
		}

		maps.Copy(joined, part)
	}

	return joined, nil
}

// issued returns the credentials of the volume's podCertificate sources, by the indexes of all of them.
func (p *Projector) issued(
	ctx context.Context,
	pod *v1.Pod,
	volume *v1.Volume,
) ([]podcertificate.Credential, error) {
	switch {
	case !podcertificate.Shows(volume):
		return nil, nil
	case p.Certificates == nil:
		return nil, errors.New("certificates of pods are not available on this node")
	}
	return p.Certificates.Volume(ctx, pod, volume)
}

var errUnknownSource = errors.New("is of a type that this agent does not serve")

// source returns the files of one source of a projected volume that is not a podCertificate.
func (p *Projector) source(
	ctx context.Context,
	pod *v1.Pod,
	source *v1.VolumeProjection,
	fallback fs.FileMode,
) (Files, error) {
	switch {
	case source.ConfigMap != nil:
		s := source.ConfigMap
		return p.configMap(ctx, pod, s.Name, keysOf(s.Items, fallback, s.Optional))
	case source.Secret != nil:
		s := source.Secret
		return p.secret(ctx, pod, s.Name, keysOf(s.Items, fallback, s.Optional))
	case source.DownwardAPI != nil:
		return p.downward(pod, source.DownwardAPI.Items, fallback)
	case source.ServiceAccountToken != nil:
		return p.token(ctx, pod, source.ServiceAccountToken, fallback)
	case source.ClusterTrustBundle != nil:
		return p.trust(ctx, pod, source.ClusterTrustBundle, fallback)
	}

	return nil, errUnknownSource
}

// downward returns the files of the downward API, one for each item.
func (p *Projector) downward(
	pod *v1.Pod,
	items []v1.DownwardAPIVolumeFile,
	fallback fs.FileMode,
) (Files, error) {
	files := Files{}
	for i := range items {
		item := &items[i]
		value, err := p.field(pod, item)
		if err != nil {
			return nil, fmt.Errorf("downward API item %s: %w", item.Path, err)
		}

		files[item.Path] = atomicdir.File{Data: []byte(value), Mode: itemMode(item.Mode, fallback)}
	}
	return files, nil
}

// field is the text of an item: a field of the pod, or a resource of one of its containers.
func (p *Projector) field(pod *v1.Pod, item *v1.DownwardAPIVolumeFile) (string, error) {
	switch {
	case item.FieldRef != nil:
		return podenv.Field(pod, item.FieldRef.FieldPath, p.Node, nil)
	case item.ResourceFieldRef != nil:
		return podenv.Resource(pod, "", item.ResourceFieldRef, p.Node)
	}
	return "", errors.New("it has no fieldRef and no resourceFieldRef")
}

// mode is the mode of files by the volume's defaultMode.
func mode(m *int32) fs.FileMode { return itemMode(m, defaultMode) }

// itemMode is an item's own mode, or else that of the volume.
func itemMode(own *int32, fallback fs.FileMode) fs.FileMode {
	if own == nil {
		return fallback
	}
	return fs.FileMode(*own).Perm()
}
