package podsource

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// apiServer has the pods of one namespace.
type apiServer struct {
	mu      sync.Mutex
	pods    map[string]*v1.Pod
	version int
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()

	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}

	out, failed := a.do(r.Method, path.Base(path.Dir(r.URL.Path)), path.Base(r.URL.Path), body)
	w.Header().Set("Content-Type", "application/json")
	if failed != nil {
		w.WriteHeader(int(failed.ErrStatus.Code))
		_ = json.NewEncoder(w).Encode(failed.Status())
		return
	}

	_ = json.NewEncoder(w).Encode(out)
}

// do serves pods and pods/NAME and pods/NAME/status.
func (a *apiServer) do(method, parent, name string, body []byte) (*v1.Pod, *apierrors.StatusError) {
	resource := v1.Resource("pods")
	if method == http.MethodPatch {
		name = parent
	}

	have := a.pods[name]
	if have == nil && method != http.MethodPost {
		return nil, apierrors.NewNotFound(resource, name)
	}

	a.version++
	pod := &v1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	switch method {
	case http.MethodPost:
		if err := json.Unmarshal(body, pod); err != nil {
			panic(err)
		}
		if a.pods[pod.Name] != nil {
			return nil, apierrors.NewAlreadyExists(resource, pod.Name)
		}

		pod.UID = types.UID(fmt.Sprint("api-", a.version))

	case http.MethodPatch:
		before, err := json.Marshal(have)
		if err != nil {
			panic(err)
		}

		after, err := strategicpatch.StrategicMergePatch(before, body, v1.Pod{})
		if err != nil {
			panic(err)
		}
		if err := json.Unmarshal(after, pod); err != nil {
			panic(err)
		}

	case http.MethodDelete:
		options := metav1.DeleteOptions{}
		if err := json.Unmarshal(body, &options); err != nil {
			panic(err)
		}
		if *options.Preconditions.UID != have.UID {
			return nil, apierrors.NewConflict(resource, name, nil)
		}

		delete(a.pods, name)
		return have, nil

	default:
		return have, nil
	}

	pod.ResourceVersion = fmt.Sprint(a.version)
	a.pods[pod.Name] = pod
	return pod, nil
}

func mirrorsOf(t *testing.T, s *Source) (Mirrors, *apiServer) {
	t.Helper()
	api := &apiServer{pods: map[string]*v1.Pod{}}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client, err := rest.RESTClientFor(&rest.Config{
		Host:    server.URL,
		APIPath: "/api",
		ContentConfig: rest.ContentConfig{
			GroupVersion:         &v1.SchemeGroupVersion,
			NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "node-uid"}}
	return Mirrors{Source: s, Core: client, Node: func() *v1.Node { return node }}, api
}

// watched brings the source to what the API server has.
func (a *apiServer) watched(t *testing.T, s *Source) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []any
	for _, pod := range a.pods {
		all = append(all, pod.DeepCopy())
	}
	if err := (*apiStore)(s).Replace(all, fmt.Sprint(a.version)); err != nil {
		t.Fatal(err)
	}
}

var running = []byte(`{"status": {"phase": "Running", "startTime": "2026-11-28T10:00:00Z"}}`)

func TestMirrorShowsItsStaticPod(t *testing.T) {
	s, _ := source(t)
	m, api := mirrorsOf(t, s)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	api.watched(t, s)
	static := d.only()
	shown, err := m.PatchStatus(t.Context(), static, running)
	if err != nil {
		t.Fatal(err)
	}

	mirror := api.pods["etcd-node1"]
	if !Mirror(mirror) || StaticOf(mirror) != static.UID || mirror.Status.Phase != v1.PodRunning ||
		mirror.OwnerReferences[0].UID != "node-uid" {
		t.Errorf("mirror %+v", mirror)
	}

	if shown.UID != static.UID || s.Get(static.UID).Status.Phase != v1.PodRunning {
		t.Error("the source does not know what is shown")
	}

	api.watched(t, s)
	if have, known := s.MirrorOf(static); !known || have.UID != mirror.UID || !s.Shows(have) {
		t.Errorf("the source's mirror is %v", have)
	}

	// mirrors are not among the pods that run
	d.only()
}

func TestMirrorIsMadeWhenItsNodeIsThere(t *testing.T) {
	s, _ := source(t)
	m, api := mirrorsOf(t, s)
	m.Node = func() *v1.Node { return nil }
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	if _, err := m.PatchStatus(t.Context(), d.only(), running); err == nil || len(api.pods) > 0 {
		t.Errorf("error %v, pods %v", err, api.pods)
	}
}

func TestMirrorWhoseManifestIsGoneHasNothingToShow(t *testing.T) {
	for when, restarted := range map[string]bool{"running": false, "down": true} {
		t.Run("while the agent is "+when, func(t *testing.T) {
			s, told := source(t)
			m, api := mirrorsOf(t, s)
			d := manifestsOf(t, s)
			d.write("etcd.yaml", etcd)
			api.watched(t, s)
			if _, err := m.PatchStatus(t.Context(), d.only(), running); err != nil {
				t.Fatal(err)
			}

			api.watched(t, s)
			if restarted {
				s, told = source(t)
				d.Source = s
				s.Expect("file")
				api.watched(t, s)
				if mirror := api.pods["etcd-node1"]; !s.Shows(mirror) {
					t.Error("a mirror is not needed before the manifests were read")
				}
			}

			*told = nil
			d.remove("etcd.yaml")
			mirror := api.pods["etcd-node1"]
			if s.Shows(mirror) || !slices.Contains(*told, mirror.UID) {
				t.Errorf("the mirror stays; told %v of %s", *told, mirror.UID)
			}
			if err := m.Delete(t.Context(), mirror); err != nil || len(api.pods) > 0 {
				t.Errorf("delete: %v, pods %v", err, api.pods)
			}
		})
	}
}

func TestMirrorThatSomebodyDeletesComesBack(t *testing.T) {
	s, told := source(t)
	m, api := mirrorsOf(t, s)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	api.watched(t, s)
	if _, err := m.PatchStatus(t.Context(), d.only(), running); err != nil {
		t.Fatal(err)
	}

	api.watched(t, s)
	static, first := d.only(), api.pods["etcd-node1"]
	*told = nil
	delete(api.pods, first.Name)
	if err := (*apiStore)(s).Delete(first); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(*told, static.UID) {
		t.Errorf("told of %v, not of the static pod", *told)
	}
	if mirror, known := s.MirrorOf(static); mirror != nil || !known {
		t.Errorf("mirror %v", mirror)
	}

	_, err := m.PatchStatus(t.Context(), static, running)
	if err != nil || api.pods["etcd-node1"].UID == first.UID {
		t.Errorf("error %v, mirror %v", err, api.pods)
	}
}

func TestMirrorOfAnotherManifestIsReplaced(t *testing.T) {
	s, _ := source(t)
	m, api := mirrorsOf(t, s)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	static := d.only()
	old := static.DeepCopy()
	old.UID, old.Annotations[v1.MirrorPodAnnotationKey] = "api-0", "of-an-earlier-manifest"
	api.pods[old.Name] = old
	if s.Shows(old) {
		t.Error("it shows this one")
	}

	// The watch has not told of the old one yet.
	if _, err := m.PatchStatus(t.Context(), static, running); err != nil {
		t.Fatal(err)
	}
	if mirror := api.pods[old.Name]; mirror.UID == "api-0" || StaticOf(mirror) != static.UID {
		t.Errorf("mirror %+v", mirror)
	}
}

func TestPodThatIsNoMirrorKeepsItsName(t *testing.T) {
	s, _ := source(t)
	m, api := mirrorsOf(t, s)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	foreign := &v1.Pod{}
	foreign.Name, foreign.Namespace, foreign.UID = "etcd-node1", "kube-system", "api-0"
	api.pods[foreign.Name] = foreign
	_, err := m.PatchStatus(t.Context(), d.only(), running)
	if err == nil || api.pods[foreign.Name] != foreign {
		t.Errorf("error %v, pod %+v", err, api.pods[foreign.Name])
	}
}

func TestRestartedAgentTakesUpWhatItsMirrorShows(t *testing.T) {
	s, _ := source(t)
	m, api := mirrorsOf(t, s)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	api.watched(t, s)
	if _, err := m.PatchStatus(t.Context(), d.only(), running); err != nil {
		t.Fatal(err)
	}

	for _, apiFirst := range []bool{true, false} {
		s, _ := source(t)
		d := directory{&Files{Source: s, Path: d.Path, Node: "node1"}, t}
		if apiFirst {
			api.watched(t, s)
		}

		d.read()
		if !apiFirst {
			api.watched(t, s)
		}
		if start := d.only().Status.StartTime; start == nil || start.UTC().Hour() != 10 {
			t.Errorf("the API first %v: start time %v", apiFirst, start)
		}
	}
}
