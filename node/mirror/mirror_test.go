package mirror_test

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/mirror"
	"github.com/trivet-node/trivet/node/podsource"
)

// known is what a source knows of the mirror of the only static pod.
type known struct {
	mirror *v1.Pod
	shown  *v1.Pod
	gone   []types.UID
}

func (k *known) Gone(pod types.UID) { k.gone = append(k.gone, pod) }

func (k *known) MirrorOf(*v1.Pod) (*v1.Pod, bool) { return k.mirror, true }

func (k *known) Mirrored(static, mirror *v1.Pod) *v1.Pod {
	k.mirror, k.shown = mirror, static.DeepCopy()
	k.shown.Status = mirror.Status
	return k.shown
}

// static is a pod of a manifest.
func static() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			UID:         "static",
			Namespace:   "kube-system",
			Name:        "etcd-node1",
			Annotations: map[string]string{manifest.AnnotationSource: manifest.SourceFile},
		},
	}
}

func writer(t *testing.T) (mirror.Writer, *known, *kubetest.Server) {
	t.Helper()
	server, source := kubetest.Start(t), &known{}
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "node-uid"}}
	return mirror.Writer{
		Pods:   kube.Pods(server.Client()),
		Source: source,
		Node:   func() *v1.Node { return node },
	}, source, server
}

func stored(server *kubetest.Server) *v1.Pod {
	return kubetest.Get[v1.Pod](server, "pods", "kube-system", "etcd-node1")
}

var running = []byte(`{"status": {"phase": "Running"}}`)

func TestTheStatusOfAPodOfTheAPIGoesToThePod(t *testing.T) {
	w, source, server := writer(t)
	pod := static()
	pod.Annotations = nil
	server.Put(pod)
	got, err := w.PatchStatus(t.Context(), pod, running)
	if err != nil || got.Status.Phase != v1.PodRunning || stored(server).Status.Phase != v1.PodRunning {
		t.Errorf("%+v, %v", got, err)
	}
	if source.shown != nil {
		t.Error("it was taken for a mirror")
	}
}

func TestMirrorShowsItsStaticPod(t *testing.T) {
	w, source, server := writer(t)
	got, err := w.PatchStatus(t.Context(), static(), running)
	if err != nil {
		t.Fatal(err)
	}
	if got.UID != "static" || got.Status.Phase != v1.PodRunning || source.shown == nil {
		t.Errorf("the answer is %+v", got)
	}

	made := stored(server)
	if podsource.StaticOf(made) != "static" || made.Status.Phase != v1.PodRunning ||
		made.OwnerReferences[0].UID != "node-uid" || made.UID == "static" {
		t.Errorf("mirror %+v", made)
	}

	if _, err := w.PatchStatus(t.Context(), static(), running); err != nil || stored(server).UID != made.UID {
		t.Errorf("the second status: %v, mirror %v", err, stored(server).UID)
	}
}

func TestMirrorIsMadeWhenItsNodeIsThere(t *testing.T) {
	w, _, server := writer(t)
	w.Node = func() *v1.Node { return nil }
	_, err := w.PatchStatus(t.Context(), static(), running)
	if err == nil || !strings.Contains(err.Error(), "not registered") || stored(server) != nil {
		t.Errorf("error %v, pod %v", err, stored(server))
	}
}

func TestMirrorThatSomebodyDeletedIsMadeAgain(t *testing.T) {
	w, source, server := writer(t)
	if _, err := w.PatchStatus(t.Context(), static(), running); err != nil {
		t.Fatal(err)
	}

	first := stored(server).UID
	server.Remove("pods", "kube-system", "etcd-node1")
	source.mirror = nil
	if _, err := w.PatchStatus(t.Context(), static(), running); err != nil {
		t.Fatal(err)
	}
	if again := stored(server); again == nil || again.UID == first {
		t.Errorf("mirror %v", again)
	}
}

func TestMirrorOfAnotherManifestIsReplaced(t *testing.T) {
	for name, watched := range map[string]bool{"watched": true, "not watched yet": false} {
		t.Run(name, func(t *testing.T) {
			w, source, server := writer(t)
			old := static()
			old.UID, old.Annotations[v1.MirrorPodAnnotationKey] = "api-0", "of-an-earlier-manifest"
			server.Put(old)
			if watched {
				source.mirror = old
			}
			if _, err := w.PatchStatus(t.Context(), static(), running); err != nil {
				t.Fatal(err)
			}
			if now := stored(server); now.UID == "api-0" || podsource.StaticOf(now) != "static" {
				t.Errorf("mirror %+v", now)
			}
		})
	}
}

func TestPodThatIsNoMirrorKeepsItsName(t *testing.T) {
	w, _, server := writer(t)
	foreign := static()
	foreign.UID, foreign.Annotations = "api-0", nil
	server.Put(foreign)
	_, err := w.PatchStatus(t.Context(), static(), running)
	if err == nil || !strings.Contains(err.Error(), "kube-system/etcd-node1") {
		t.Errorf("error %v", err)
	}
	if now := stored(server); now.UID != "api-0" || now.Status.Phase != "" {
		t.Errorf("pod %+v", now)
	}
}

func TestOnlyThePodWithTheUIDIsDeleted(t *testing.T) {
	w, _, server := writer(t)
	pod := static()
	server.Put(pod)
	other := static()
	other.UID = types.UID("other")
	if err := w.Delete(t.Context(), other); err != nil || stored(server) == nil {
		t.Errorf("another pod: %v, %v", err, stored(server))
	}
	if err := w.Delete(t.Context(), pod); err != nil || stored(server) != nil {
		t.Errorf("%v, %v", err, stored(server))
	}
	if err := w.Delete(t.Context(), pod); err != nil {
		t.Errorf("a pod that has gone: %v", err)
	}
	if calls := server.Calls(); !slices.Contains(calls, "delete pods kube-system/etcd-node1") {
		t.Errorf("calls %v", calls)
	}
}

func TestPodsThatTheAPIDoesNotHaveAnyMoreAreNamed(t *testing.T) {
	w, source, server := writer(t)
	pod := static()
	pod.Annotations = nil
	server.Put(pod)
	pod.UID = stored(server).UID
	if _, err := w.PatchStatus(t.Context(), pod, running); err != nil || len(source.gone) > 0 {
		t.Errorf("%v; gone %v", err, source.gone)
	}
	if err := w.Delete(t.Context(), pod); err != nil || len(source.gone) != 1 {
		t.Errorf("%v; gone %v", err, source.gone)
	}
	if _, err := w.PatchStatus(t.Context(), pod, running); err == nil || len(source.gone) != 2 {
		t.Errorf("%v; gone %v", err, source.gone)
	}
}
