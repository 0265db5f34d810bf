package objects_test

import (
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func bundle(name, signer, alive, text string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"alive": alive}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text},
	}
}

// trusting is a pod whose volume has the source.
func trusting(uid types.UID, source v1.ClusterTrustBundleProjection) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: string(uid), UID: uid}}
	sources := []v1.VolumeProjection{{ClusterTrustBundle: &source}}
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{
		Projected: &v1.ProjectedVolumeSource{Sources: sources},
	}}}
	return p
}

func bySigner(signer string) v1.ClusterTrustBundleProjection {
	return v1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: &metav1.LabelSelector{}}
}

// texts are the contents of a signer's bundles that are alive.
func (n *node) texts(t *testing.T, signer string) []string {
	t.Helper()
	alive := labels.SelectorFromSet(labels.Set{"alive": "yes"})
	found, err := n.ClusterTrustBundles(t.Context(), signer, alive)
	if err != nil {
		t.Fatal(err)
	}

	var out []string
	for _, b := range found {
		out = append(out, b.Spec.TrustBundle)
	}
	slices.Sort(out)
	return out
}

func TestATrustBundleIsFollowedByItsName(t *testing.T) {
	api := kubetest.Start(t)
	n := run(t, api)
	n.Register(trusting("u1", v1.ClusterTrustBundleProjection{Name: new("one")}))
	_, err := n.ClusterTrustBundle(t.Context(), "one")
	if !apierrors.IsNotFound(err) {
		t.Errorf("one that is not there: %v", err)
	}

	api.Put(bundle("one", "x/s", "", "a"))
	if uid := await(t, n.notified); uid != "u1" {
		t.Errorf("notified %s", uid)
	}

	before := n.calls("get clustertrustbundles")
	got, err := n.ClusterTrustBundle(t.Context(), "one")
	if err != nil || got.Spec.TrustBundle != "a" || n.calls("get clustertrustbundles") != before {
		t.Errorf("%v, %v, or it was read", got, err)
	}
}

func TestTheBundlesOfASignerAreWatchedTogether(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(bundle("one", "x/s", "yes", "a"))
	api.Put(bundle("two", "x/s", "no", "b"))
	api.Put(bundle("three", "y/s", "yes", "c"))

	n := run(t, api)
	n.Register(trusting("u1", bySigner("x/s")))
	n.Register(trusting("u2", bySigner("x/s")))
	if got := n.texts(t, "x/s"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("bundles %q", got)
	}

	// What no pod selects is read.
	before := n.calls("list clustertrustbundles")
	if got := n.texts(t, "y/s"); !slices.Equal(got, []string{"c"}) {
		t.Errorf("bundles %q", got)
	}
	if got := n.calls("list clustertrustbundles") - before; got != 1 {
		t.Errorf("%d lists, want 1", got)
	}

	api.Put(bundle("three", "y/s", "yes", "d"))
	api.Put(bundle("two", "x/s", "yes", "e"))
	told := []types.UID{await(t, n.notified), await(t, n.notified)}
	slices.Sort(told)
	if !slices.Equal(told, []types.UID{"u1", "u2"}) {
		t.Errorf("notified %v", told)
	}
	if got := n.texts(t, "x/s"); !slices.Equal(got, []string{"a", "e"}) {
		t.Errorf("bundles %q", got)
	}
	if got := n.calls("watch clustertrustbundles"); got != 1 {
		t.Errorf("%d watches, want 1", got)
	}

	// Without users there is no watch.
	n.Unregister("u1")
	n.Unregister("u2")
	before = n.calls("list clustertrustbundles")
	n.texts(t, "x/s")
	if got := n.calls("list clustertrustbundles") - before; got != 1 {
		t.Errorf("%d lists, want 1", got)
	}
}

func TestARefusalToShowASignersBundlesIsAnErrorAtOnce(t *testing.T) {
	api := kubetest.Start(t)
	refusal := apierrors.NewServiceUnavailable("not now")
	api.FailOn("list clustertrustbundles", -1, refusal)
	api.FailOn("watch clustertrustbundles", -1, refusal)
	n := run(t, api)
	n.Register(trusting("u1", bySigner("x/s")))
	_, err := n.ClusterTrustBundles(t.Context(), "x/s", labels.Everything())
	if err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("%v, want what the server says", err)
	}
}

func TestASourceWithoutASelectorSelectsNothing(t *testing.T) {
	api := kubetest.Start(t)
	n := run(t, api)
	n.Register(trusting("u1", v1.ClusterTrustBundleProjection{SignerName: new("x/s")}))
	n.Register(trusting("u2", bySigner("y/s")))
	n.texts(t, "y/s")
	if got := n.calls("watch clustertrustbundles"); got != 1 {
		t.Errorf("%d watches, want 1", got)
	}
}
