// Package kubeapi connects the node agent to the Kubernetes API server: kubeconfig files, a small REST client
// with a scheme that holds only the groups the agent uses (the full clientset costs 8 MB of resident memory),
// and the agent's client certificate, which it gets with a bootstrap token by a CertificateSigningRequest and
// renews before it ends.
package kubeapi

import (
	"fmt"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Client is the agent's connection to the API server: one REST client per API group over one HTTP/2
// transport. Requests are not limited on this side; the server's priority and fairness does that.
type Client struct {
	Core           *rest.RESTClient // v1
	Coordination   *rest.RESTClient // coordination.k8s.io/v1
	Storage        *rest.RESTClient // storage.k8s.io/v1
	Node           *rest.RESTClient // node.k8s.io/v1
	Certificates   *rest.RESTClient // certificates.k8s.io/v1
	Authentication *rest.RESTClient // authentication.k8s.io/v1
	Authorization  *rest.RESTClient // authorization.k8s.io/v1
	// Scheme and Params are those the clients encode with, e.g. for
	// req.VersionedParams(&metav1.ListOptions{}, client.Params).
	Scheme *runtime.Scheme
	Params runtime.ParameterCodec
}

// New returns a client for the server that cfg describes. It does not connect.
func New(cfg *rest.Config) (*Client, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}

	c := &Client{Scheme: scheme, Params: runtime.NewParameterCodec(scheme)}
	codecs := serializer.NewCodecFactory(scheme)
	base := rest.CopyConfig(cfg)
	base.QPS, base.RateLimiter = -1, nil
	httpClient, err := rest.HTTPClientFor(base)
	if err != nil {
		return nil, fmt.Errorf("connect to API server %s: %w", cfg.Host, err)
	}

	for gv, target := range map[schema.GroupVersion]**rest.RESTClient{
		corev1.SchemeGroupVersion:           &c.Core,
		coordinationv1.SchemeGroupVersion:   &c.Coordination,
		storagev1.SchemeGroupVersion:        &c.Storage,
		nodev1.SchemeGroupVersion:           &c.Node,
		certificatesv1.SchemeGroupVersion:   &c.Certificates,
		authenticationv1.SchemeGroupVersion: &c.Authentication,
		authorizationv1.SchemeGroupVersion:  &c.Authorization,
	} {
		if *target, err = groupClient(base, httpClient, gv, codecs.WithoutConversion()); err != nil {
			return nil, err
		}
	}

	return c, nil
}

func groupClient(
	base *rest.Config,
	h *http.Client,
	gv schema.GroupVersion,
	codec runtime.NegotiatedSerializer,
) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(base)
	cfg.GroupVersion, cfg.NegotiatedSerializer, cfg.APIPath = &gv, codec, "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}

	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", gv, err)
	}

	return client, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, coordinationv1.AddToScheme, storagev1.AddToScheme, nodev1.AddToScheme,
		certificatesv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("scheme: %w", err)
		}
	}
	return scheme, nil
}

// dialTimeout bounds a connection attempt to an API server that does not answer.
const dialTimeout = 10 * time.Second
