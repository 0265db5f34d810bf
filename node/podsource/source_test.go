package podsource

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func source(t *testing.T) (*Source, *[]types.UID) {
	t.Helper()
	var told []types.UID
	return New(func(uid types.UID) { told = append(told, uid) }, slog.New(slog.DiscardHandler)), &told
}

func version(uid, rv string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: "p", Namespace: "n", ResourceVersion: rv}}
}

func TestLateEventsDoNotReplaceWhatIsNewer(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	if err := a.Replace([]any{version("u", "5")}, "5"); err != nil {
		t.Fatal(err)
	}
	for _, late := range []string{"4", "5"} {
		if err := a.Update(version("u", late)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Get("u").ResourceVersion; got != "5" || len(*told) != 1 {
		t.Errorf("version %s after late events, told %v", got, *told)
	}
	s.Saw(version("u", "9"))
	if err := a.Update(version("u", "8")); err != nil {
		t.Fatal(err)
	}
	if got := s.Get("u").ResourceVersion; got != "9" {
		t.Errorf("the watch took version %s over the answer of our own write", got)
	}
}

func TestAPodOfTheSameNameIsAnotherPod(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	for _, do := range []error{a.Add(version("old", "1")), a.Add(version("new", "3")), a.Delete(version("old", "2"))} {
		if do != nil {
			t.Fatal(do)
		}
	}
	if s.Get("old") != nil || s.Get("new") == nil || !slices.Equal(*told, []types.UID{"old", "new", "old"}) {
		t.Errorf("pods %v, told %v", s.List(), *told)
	}
	s.Saw(version("old", "9"))
	if s.Get("old") != nil {
		t.Error("the answer to a write brought a deleted pod back")
	}
}

func TestARelistTellsWhatWentMissing(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	if err := a.Replace([]any{version("a", "1"), version("b", "1")}, "1"); err != nil {
		t.Fatal(err)
	}
	*told = nil
	if err := a.Replace([]any{version("b", "1")}, "7"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*told, []types.UID{"a"}) || s.Get("a") != nil {
		t.Errorf("told %v", *told)
	}
}

const manifest = `{apiVersion: v1, kind: Pod, metadata: {name: etcd, namespace: kube-system}, spec: {containers: [{name: c, image: "registry.example/etcd"}]}}`

func TestStaticPodsFollowTheirFiles(t *testing.T) {
	s, _ := source(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "etcd.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.readManifests(dir, "node1")
	}
	write(manifest)
	first := s.List()
	if len(first) != 1 || first[0].Name != "etcd-node1" || !Static(first[0]) || first[0].Spec.Containers[0].ImagePullPolicy != v1.PullAlways {
		t.Fatalf("pods %+v", first)
	}
	write("half writ")
	if got := s.List(); len(got) != 1 || got[0].UID != first[0].UID {
		t.Error("a half-written file ended the pod")
	}
	if err := (*apiStore)(s).Replace(nil, "1"); err != nil {
		t.Fatal(err)
	}
	if len(s.List()) != 1 {
		t.Error("the API's list took a static pod away")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.readManifests(dir, "node1")
	if got := s.List(); len(got) != 0 {
		t.Errorf("the file is gone, the pod is not: %v", got)
	}
}

func TestStaticPodsAreKnownBeforeTheAPIsList(t *testing.T) {
	s, _ := source(t)
	dir := filepath.Join(t.TempDir(), "manifests")
	if err := s.Load(dir, "node1"); err != nil {
		t.Fatalf("a directory that is not there yet: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etcd.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(dir, "node1"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Synced():
		t.Error("the API's list counts as known")
	default:
	}
	if pods := s.List(); len(pods) != 1 {
		t.Errorf("pods %v", pods)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifest))
	f.Fuzz(func(t *testing.T, data []byte) {
		if pod, err := ParseManifest(data, "/etc/kubernetes/manifests/x.yaml", "node1"); err == nil && (pod.UID == "" || pod.Spec.NodeName != "node1") {
			t.Errorf("accepted %+v", pod)
		}
	})
}
