package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// api is the API server of a world. The real one is in e2e.
type api struct {
	*kubetest.Server
	t     *testing.T
	nodes int
}

const serviceCIDR = "10.244.96.0/20"

func newAPI(t *testing.T) *api {
	a := &api{Server: kubetest.Start(t), t: t}
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	c.Spec.CIDRs = []string{serviceCIDR}
	a.Put(c)
	t.Cleanup(a.checkCalls)
	return a
}

var watched = []string{"nodes", "servicecidrs", "networkpolicies", "pods", "namespaces"}

// checkCalls compares the calls with the permissions that deploy/cni/rbac.yaml gives.
func (a *api) checkCalls() {
	for _, call := range a.Calls() {
		verb, resource, _ := strings.Cut(call, " ")
		allowed := resource == "events default" && verb == "create" ||
			slices.Contains(watched, resource) && (verb == "list" || verb == "watch")
		if !allowed {
			a.t.Errorf("trivet-netd calls %s", call)
		}
	}
}

// put stores a Node, created after those that were stored before.
func (a *api) put(name string, cidrs, addresses []string) {
	a.nodes++
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:              name,
		UID:               types.UID("uid-" + name),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(a.nodes), 0)),
	}}

	n.Spec.PodCIDRs = cidrs
	if len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}

	for _, ip := range addresses {
		address := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip}
		n.Status.Addresses = append(n.Status.Addresses, address)
	}

	a.Put(n)
}

func (a *api) remove(name string) { a.Remove("nodes", "", name) }

// eventOf waits for an Event about a Node.
func (w *world) eventOf(node string) (found corev1.Event) {
	w.t.Helper()
	w.await("an Event of node "+node, func() bool {
		for _, e := range kubetest.All[corev1.Event](w.api.Server, "events") {
			if e.InvolvedObject.Name == node {
				found = *e
				return true
			}
		}
		return false
	})
	return found
}
