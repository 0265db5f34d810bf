package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// dialTimeout bounds one attempt to connect. Until kube-proxy has written its rules, nobody answers at the
// address of the API's Service: the client's own 30 s would keep a node that starts from noticing that they
// are there.
const dialTimeout = 2500 * time.Millisecond

// answerTimeout bounds a request: an API server that is busy answers late.
const answerTimeout = 15 * time.Second

// restClient makes a client of one API group that knows a few types. The clientset's scheme knows every type
// of Kubernetes and takes 10 MB for it.
func restClient(
	config *rest.Config, path string, group schema.GroupVersion, types ...runtime.Object,
) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(group, types...)
	metav1.AddToGroupVersion(scheme, group)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = path, &group
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("make client of API group %q: %w", group, err)
	}

	return client, nil
}

func coreClient(config *rest.Config) (*rest.RESTClient, error) {
	return restClient(config, "/api", corev1.SchemeGroupVersion, &corev1.Node{}, &corev1.NodeList{},
		&corev1.Event{})
}

func networkingClient(config *rest.Config) (*rest.RESTClient, error) {
	return restClient(config, "/apis", networkingv1.SchemeGroupVersion, &networkingv1.ServiceCIDR{},
		&networkingv1.ServiceCIDRList{})
}

// Between two attempts to reach an API server that was not yet there are firstPause, then twice that, up to
// lastPause.
const firstPause, lastPause = 200 * time.Millisecond, 2 * time.Second

// reach asks for one Node until the API server answers, which a list-watch would do with pauses of up to 30
// s.
func (n *nodes) reach(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := n.client.Get().Resource("nodes").Param("limit", "1").Timeout(answerTimeout).Do(ctx).Error()
		if err == nil {
			return nil
		}

		n.setBroken(err)
		select {
		case <-ctx.Done():
			return ctx.Err()

		// not all nodes of a cluster at once
		case <-time.After(pause + rand.N(pause)):
		}
	}
}
