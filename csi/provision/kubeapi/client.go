// Package kubeapi is the provisioner's connection to the Kubernetes API: the few calls and list-watches that
// it needs, over REST clients whose scheme knows only their types. client-go's clientset knows all types and
// takes some 20 MB of resident memory for that.
package kubeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	claims  = "persistentvolumeclaims"
	volumes = "persistentvolumes"

	capacities = "csistoragecapacities"
)

// Client speaks to the API server. Requests are not rationed on this side; the server's priority and fairness
// does that.
type Client struct {
	core, storage *rest.RESTClient
}

// New returns a client for the server that cfg describes. It does not connect.
func New(cfg *rest.Config) (*Client, error) {
	base := rest.CopyConfig(cfg)
	base.QPS, base.RateLimiter = -1, nil
	base.NegotiatedSerializer = serializer.NewCodecFactory(Scheme()).WithoutConversion()
	base.ContentType = runtime.ContentTypeProtobuf
	base.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	conn, err := rest.HTTPClientFor(base)
	if err != nil {
		return nil, fmt.Errorf("connect to API server %s: %w", cfg.Host, err)
	}

	c := &Client{}
	if c.core, err = group(base, conn, "/api", corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if c.storage, err = group(base, conn, "/apis", storagev1.SchemeGroupVersion); err != nil {
		return nil, err
	}

	return c, nil
}

func group(
	base *rest.Config,
	conn *http.Client,
	path string,
	version schema.GroupVersion,
) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(base)
	cfg.APIPath, cfg.GroupVersion = path, &version
	client, err := rest.RESTClientForConfigAndClient(cfg, conn)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", version, err)
	}
	return client, nil
}

// Scheme knows the types that the provisioner reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(
		corev1.SchemeGroupVersion,
		&corev1.PersistentVolumeClaim{},
		&corev1.PersistentVolumeClaimList{},
		&corev1.PersistentVolume{},
		&corev1.PersistentVolumeList{},
		&corev1.Event{},
	)

	scheme.AddKnownTypes(
		storagev1.SchemeGroupVersion,
		&storagev1.StorageClass{},
		&storagev1.StorageClassList{},
		&storagev1.CSINode{},
		&storagev1.CSINodeList{},
		&storagev1.CSIDriver{},
		&storagev1.CSIDriverList{},
		&storagev1.CSIStorageCapacity{},
		&storagev1.CSIStorageCapacityList{},
	)

	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	metav1.AddToGroupVersion(scheme, storagev1.SchemeGroupVersion)
	return scheme
}

// Claim reads a claim from the server.
func (c *Client) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	claim := &corev1.PersistentVolumeClaim{}
	return claim, c.core.Get().Namespace(namespace).Resource(claims).Name(name).Do(ctx).Into(claim)
}

// PatchClaim applies a JSON merge patch to a claim.
func (c *Client) PatchClaim(ctx context.Context, namespace, name string, patch []byte) error {
	return c.core.Patch(types.MergePatchType).
		Namespace(namespace).
		Resource(claims).
		Name(name).
		Body(patch).
		Do(ctx).
		Error()
}

// PatchClaimStatus applies a JSON merge patch to the status of a claim, and returns what the claim is by
// then.
func (c *Client) PatchClaimStatus(
	ctx context.Context,
	namespace, name string,
	patch []byte,
) (*corev1.PersistentVolumeClaim, error) {
	claim := &corev1.PersistentVolumeClaim{}
	return claim, c.core.Patch(types.MergePatchType).
		Namespace(namespace).
		Resource(claims).
		Name(name).
		SubResource("status").
		Body(patch).
		Do(ctx).
		Into(claim)
}

// Volume reads a PersistentVolume from the server.
func (c *Client) Volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	pv := &corev1.PersistentVolume{}
	return pv, c.core.Get().Resource(volumes).Name(name).Do(ctx).Into(pv)
}

// CreateVolume creates a PersistentVolume.
func (c *Client) CreateVolume(ctx context.Context, pv *corev1.PersistentVolume) error {
	return c.core.Post().Resource(volumes).Body(pv).Do(ctx).Error()
}

// PatchVolume applies a JSON merge patch to a PersistentVolume.
func (c *Client) PatchVolume(ctx context.Context, name string, patch []byte) error {
	return c.core.Patch(types.MergePatchType).Resource(volumes).Name(name).Body(patch).Do(ctx).Error()
}

// DeleteVolume deletes the PersistentVolume of that name, if it is the one with the uid.
func (c *Client) DeleteVolume(ctx context.Context, name string, uid types.UID) error {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	return c.core.Delete().Resource(volumes).Name(name).Body(options).Do(ctx).Error()
}

// NodeUID returns the UID of a Node, and NotFound when there is none of that name.
func (c *Client) NodeUID(ctx context.Context, name string) (string, error) {
	data, err := c.core.Get().Resource("nodes").Name(name).SetHeader("Accept",
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var node metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &node); err != nil {
		return "", fmt.Errorf("node %s: %w", name, err)
	}
	return string(node.UID), nil
}

// ApplyCapacity makes a CSIStorageCapacity what the JSON says, whether it was there or not.
func (c *Client) ApplyCapacity(ctx context.Context, namespace, name string, object []byte) error {
	return c.storage.Patch(types.ApplyPatchType).Namespace(namespace).Resource(capacities).Name(name).
		Param("fieldManager", "trivet-csi").Param("force", "true").Body(object).Do(ctx).Error()
}

// DeleteCapacity deletes a CSIStorageCapacity.
func (c *Client) DeleteCapacity(ctx context.Context, namespace, name string) error {
	return c.storage.Delete().Namespace(namespace).Resource(capacities).Name(name).Do(ctx).Error()
}

// CreateEvent stores a new event.
func (c *Client) CreateEvent(ctx context.Context, e *corev1.Event) error {
	return c.core.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
}

// PatchEvent applies a JSON merge patch to a stored event.
func (c *Client) PatchEvent(ctx context.Context, namespace, name string, patch []byte) error {
	return c.core.Patch(types.MergePatchType).Namespace(namespace).Resource("events").Name(name).Body(patch).Do(ctx).Error()
}
