package cluster_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/cni/netd/cluster"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// watched is a Cluster that runs.
type watched struct {
	*cluster.Cluster
	t       *testing.T
	changes chan struct{}
}

func start(t *testing.T, api *kubetest.Server) watched {
	t.Helper()
	w := watched{t: t, changes: make(chan struct{}, 1)}
	changed := func() {
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}

	var err error
	w.Cluster, err = cluster.New(api.Config(), changed, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})

	return w
}

// await looks after each change until it is so. The test's own deadline ends it.
func (w watched) await(so func() bool) {
	w.t.Helper()
	for !so() {
		select {
		case <-w.changes:
		case <-w.t.Context().Done():
			w.t.Fatal("it never is so")
		}
	}
}

func node(name, cidr, address string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.PodCIDRs = []string{cidr}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
	return n
}

func TestNodesAreThoseOfTheClusterByName(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(node("b", "10.244.1.0/24", "10.99.0.2"))
	api.Put(node("a", "nonsense", "10.99.0.1"))
	w := start(t, api)
	w.await(func() bool { return w.Waiting() == nil })

	all, notes := w.Nodes()
	if len(all) != 2 || all[0].Name != "a" || all[1].PodCIDRs[0].String() != "10.244.1.0/24" {
		t.Errorf("%+v", all)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "nonsense") {
		t.Errorf("notes %q", notes)
	}

	api.Put(node("b", "10.244.2.0/24", "10.99.0.2"))
	w.await(func() bool {
		all, _ := w.Nodes()
		return all[1].PodCIDRs[0].String() == "10.244.2.0/24"
	})

	api.Remove("nodes", "", "b")
	w.await(func() bool {
		all, _ := w.Nodes()
		return len(all) == 1
	})
}

func TestWaitingNamesWhyThereIsNoListYet(t *testing.T) {
	api := kubetest.Start(t)
	refused := apierrors.NewForbidden(corev1.Resource("nodes"), "", nil)
	api.FailOn("list nodes", -1, refused)
	w := start(t, api)
	w.await(func() bool {
		err := w.Waiting()
		return err != nil && strings.Contains(err.Error(), "waiting for the API server: nodes is forbidden")
	})

	api.FailOn("list nodes", 0, nil)
	w.await(func() bool { return w.Waiting() == nil })
}

func TestNetworksOfServicesIncludeTheAPIServer(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	api := kubetest.Start(t)
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	cidr.Spec.CIDRs = []string{"10.96.0.0/16", "nonsense"}
	api.Put(cidr)

	w := start(t, api)
	want := []string{"10.96.0.0/16", "127.0.0.1/32", "10.96.0.1/32"}
	w.await(func() bool {
		var got []string
		for _, p := range w.Services() {
			got = append(got, p.String())
		}

		return slices.Equal(got, want)
	})
}

// A cluster before Kubernetes 1.33 has no ServiceCIDRs.
func TestNodesDoNotWaitForTheNetworksOfServices(t *testing.T) {
	api := kubetest.Start(t)
	missing := apierrors.NewNotFound(networkingv1.Resource("servicecidrs"), "")
	api.FailOn("list servicecidrs", -1, missing)
	api.FailOn("watch servicecidrs", -1, missing)
	api.Put(node("a", "10.244.1.0/24", "10.99.0.2"))
	w := start(t, api)
	w.await(func() bool { return w.Waiting() == nil })
	if got := w.Services(); len(got) != 1 {
		t.Errorf("networks %v", got)
	}
}
