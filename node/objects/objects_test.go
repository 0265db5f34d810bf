package objects_test

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func configMap(value string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: named("m"), Data: map[string]string{"k": value}}
}

// pod is a pod with a volume of the ConfigMap m.
func pod(uid types.UID) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: string(uid), UID: uid}}
	source := &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "m"}}
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: source}}}
	return p
}

func await(t *testing.T, notified chan types.UID) types.UID {
	t.Helper()
	select {
	case uid := <-notified:
		return uid
	case <-time.After(time.Minute):
		t.Fatal("no pod was notified")
		return ""
	}
}

// expect fails the test unless the ConfigMap m has a value.
func (n *node) expect(t *testing.T, value string) {
	t.Helper()
	m, err := n.ConfigMap(t.Context(), "ns", "m")
	if err != nil || m.Data["k"] != value {
		t.Errorf("%v, %v; want the value %s", m, err, value)
	}
}

func TestAnObjectIsFollowedWhilePodsNameIt(t *testing.T) {
	api := kubetest.Start(t)
	n := run(t, api)
	n.Register(pod("u1"))
	n.Register(pod("u1"))
	if _, err := n.ConfigMap(t.Context(), "ns", "m"); !apierrors.IsNotFound(err) {
		t.Errorf("a map that is not there: %v", err)
	}

	api.Put(configMap("1"))
	if uid := await(t, n.notified); uid != "u1" {
		t.Errorf("notified %s", uid)
	}

	n.expect(t, "1")

	// Another pod shares the watch.
	n.Register(pod("u2"))
	api.Put(configMap("2"))
	if a, b := await(t, n.notified), await(t, n.notified); a == b {
		t.Errorf("%s was notified twice", a)
	}

	n.expect(t, "2")
	if got := n.calls("list configmaps"); got != 1 {
		t.Errorf("%d lists, want one", got)
	}

	n.Unregister("u1")
	n.Unregister("u2")
	n.expect(t, "2")
	if got := n.calls("get configmaps"); got != 1 {
		t.Errorf("an object that nobody names was read %d times, want once", got)
	}
}

func TestAnObjectIsListedAgainWhenTheServerHasLostItsHistory(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(configMap("1"))
	n := run(t, api)
	n.Register(pod("u"))
	n.expect(t, "1")

	api.FailOn("watch configmaps", -1, apierrors.NewResourceExpired("too old"))
	api.EndWatches()
	api.Put(configMap("2"))
	await(t, n.notified)
	n.expect(t, "2")

	// After that it is watched as before.
	api.FailOn("watch configmaps", 0, nil)
	api.Put(configMap("3"))
	await(t, n.notified)
	n.expect(t, "3")
}

func TestARefusalIsAnErrorAtOnce(t *testing.T) {
	api := kubetest.Start(t)
	api.FailOn("list configmaps", -1, apierrors.NewForbidden(v1.Resource("configmaps"), "m", nil))
	n := run(t, api)
	n.Register(pod("u"))
	if _, err := n.ConfigMap(t.Context(), "ns", "m"); !apierrors.IsForbidden(err) {
		t.Errorf("error %v", err)
	}

	api.Put(configMap("1"))
	api.FailOn("list configmaps", 0, nil)
	await(t, n.notified)
	n.expect(t, "1")
}
