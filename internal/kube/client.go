package kube

import (
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/kube/progress"
)

// Client is a connection to the API server, shared by the Objects that are made of it: they use one HTTP/2
// transport. It is safe for concurrent use.
type Client struct {
	config *rest.Config
	http   *http.Client
	limits Limits
}

// New returns a client for the server that cfg describes. It does not connect.
func New(cfg Config) (*Client, error) {
	resolved := cfg.resolved()
	shared, err := rest.HTTPClientFor(resolved)
	if err != nil {
		return nil, fmt.Errorf("client of API server %s: %w", resolved.Host, err)
	}

	// Here and not in group, so that what a program does not expect does not fail while it runs.
	if _, _, err := rest.DefaultServerUrlFor(resolved); err != nil {
		return nil, fmt.Errorf("client of API server %s: %w", resolved.Host, err)
	}

	// The client of all the process is not to be changed.
	own := *shared
	if own.Transport == nil {
		own.Transport = http.DefaultTransport
	}
	own.Transport = progress.Transport(own.Transport)
	return &Client{config: resolved, http: &own, limits: cfg.Limits.resolved()}, nil
}

// Group returns a REST client for an API group, for packages below this one that have requests of their own.
// It knows the types given, which are of the version types; that is another one only for some subresources.
func (c *Client) Group(version, types schema.GroupVersion, known ...runtime.Object) *rest.RESTClient {
	cfg := rest.CopyConfig(c.config)
	cfg.GroupVersion = &version
	cfg.APIPath = "/apis"
	if version.Group == "" {
		cfg.APIPath = "/api"
	}

	codecs := serializer.NewCodecFactory(schemeOf(types, known...))
	cfg.NegotiatedSerializer = codecs.WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON

	client, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		// New has parsed the same address, and the rest is what is written above.
		panic(fmt.Sprintf("client for %s: %v", version, err))
	}

	return client
}

// schemeOf knows the given types, the frames of a watch, the options of a deletion, and the status with which
// the server answers. metav1.AddToGroupVersion adds conversions that are not used here and five times as
// much memory, for each kind of object.
func schemeOf(version schema.GroupVersion, known ...runtime.Object) *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(version, known...)
	scheme.AddKnownTypes(version, &metav1.DeleteOptions{})
	scheme.AddKnownTypeWithName(version.WithKind(metav1.WatchEventKind), &metav1.WatchEvent{})
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{})
	return scheme
}
