package objects_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/node/objects"
)

// node is a cache beside an API server.
type node struct {
	*objects.Cache
	api      *kubetest.Server
	notified chan types.UID
	stop     func()
}

// run runs a cache until the test, or stop, ends it.
func run(t *testing.T, api *kubetest.Server) *node {
	t.Helper()
	n := &node{api: api, notified: make(chan types.UID, 99)}
	notify := func(uid types.UID) { n.notified <- uid }
	n.Cache = objects.New(api.Client(), notify, slog.New(slog.DiscardHandler))

	n.keep(t)
	return n
}

// keep keeps the cache until the test, or stop, ends it.
func (n *node) keep(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()

	n.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(n.stop)
}

// calls counts those of the API server that begin with a text.
func (n *node) calls(prefix string) int {
	return len(slices.DeleteFunc(n.api.Calls(), func(call string) bool {
		return !strings.HasPrefix(call, prefix)
	}))
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "ns", Name: name}
}

// pulling is a pod with a pull secret.
func pulling(uid types.UID, secret string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: string(uid), UID: uid},
		Spec: v1.PodSpec{
			ImagePullSecrets: []v1.LocalObjectReference{{Name: secret}},
		},
	}
}

func secret(name, value string) *v1.Secret {
	return &v1.Secret{ObjectMeta: named(name), Data: map[string][]byte{"k": []byte(value)}}
}

func TestASecretIsHeldWithoutWhatTheNodeDoesNotRead(t *testing.T) {
	api := kubetest.Start(t)
	large := secret("s", "1")
	large.Labels = map[string]string{"l": "1"}
	large.Annotations = map[string]string{"last-applied": "all of it"}
	api.Put(large)

	n := run(t, api)
	n.Register(pulling("u", "s"))
	got, err := n.Secret(t.Context(), "ns", "s")
	if err != nil || string(got.Data["k"]) != "1" {
		t.Fatalf("%v, %v", got, err)
	}
	if len(got.Labels) > 0 || len(got.Annotations) > 0 {
		t.Errorf("held with %v", got.ObjectMeta)
	}

	// A Secret that has gone is not served from memory.
	api.Remove("secrets", "ns", "s")
	await(t, n.notified)
	if _, err := n.Secret(t.Context(), "ns", "s"); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
}

func TestAnImmutableObjectIsNotWatched(t *testing.T) {
	api := kubetest.Start(t)
	fixed := secret("fixed", "1")
	fixed.Immutable = new(true)
	api.Put(fixed)
	api.Put(secret("other", "1"))

	n := run(t, api)
	n.Register(pulling("u", "fixed"))
	if _, err := n.Secret(t.Context(), "ns", "fixed"); err != nil {
		t.Fatal(err)
	}

	// That the other one is watched shows that there was time to watch the first one, too.
	n.Register(pulling("v", "other"))
	if _, err := n.Secret(t.Context(), "ns", "other"); err != nil {
		t.Fatal(err)
	}

	api.Put(secret("other", "2"))
	if uid := await(t, n.notified); uid != "v" {
		t.Errorf("notified %s", uid)
	}
	if got := n.calls("watch secrets"); got != 1 {
		t.Errorf("%d watches of secrets, want 1", got)
	}
}

func TestAPodThatNamesOtherObjectsReleasesTheFirst(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(secret("a", "1"))
	api.Put(secret("b", "1"))

	n := run(t, api)
	n.Register(pulling("u", "a"))
	if _, err := n.Secret(t.Context(), "ns", "a"); err != nil {
		t.Fatal(err)
	}

	n.Register(pulling("u", "b"))
	if _, err := n.Secret(t.Context(), "ns", "b"); err != nil {
		t.Fatal(err)
	}

	// What no pod names is read, each time.
	before := n.calls("get secrets")
	if _, err := n.Secret(t.Context(), "ns", "a"); err != nil {
		t.Fatal(err)
	}
	if got := n.calls("get secrets") - before; got != 1 {
		t.Errorf("a was read %d times, want once", got)
	}
}

func TestPodsMayBeRegisteredBeforeTheCacheRuns(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(secret("s", "1"))

	cache := objects.New(api.Client(), func(types.UID) {}, slog.New(slog.DiscardHandler))
	cache.Register(pulling("u", "s"))

	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := cache.Secret(late, "ns", "s"); err == nil {
		t.Error("a read did not wait for the cache to run")
	}

	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		cache.Run(ctx)
	}()

	if _, err := cache.Secret(t.Context(), "ns", "s"); err != nil {
		t.Errorf("once it runs: %v", err)
	}

	end()
	<-done
}

func TestNoWatchBeginsWhenTheCacheHasEnded(t *testing.T) {
	api := kubetest.Start(t)
	n := run(t, api)
	n.stop()

	before := n.calls("list secrets")
	n.Register(pulling("u", "s"))
	n.Unregister("u")
	if got := n.calls("list secrets"); got != before {
		t.Errorf("%d lists of secrets after the end", got-before)
	}
}

func TestServicesAreThoseWithAClusterIPByName(t *testing.T) {
	api := kubetest.Start(t)
	for name, ip := range map[string]string{
		"b":        "10.0.0.2",
		"a":        "10.0.0.1",
		"headless": v1.ClusterIPNone,
		"external": "",
	} {
		api.Put(&v1.Service{
			ObjectMeta: named(name),
			Spec:       v1.ServiceSpec{ClusterIP: ip, Selector: map[string]string{"app": name}},
		})
	}

	elsewhere := &v1.Service{ObjectMeta: named("c"), Spec: v1.ServiceSpec{ClusterIP: "10.0.0.3"}}
	elsewhere.Namespace = "other"
	api.Put(elsewhere)

	n := run(t, api)
	found, err := n.Services(t.Context(), "ns", true)
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, s := range found {
		got = append(got, s.Name+" "+s.Spec.ClusterIP)
		if s.Spec.Selector != nil {
			t.Errorf("%s is held with its selector", s.Name)
		}
	}
	if !slices.Equal(got, []string{"a 10.0.0.1", "b 10.0.0.2"}) {
		t.Errorf("services %q", got)
	}
}

func TestServicesAreNotWaitedForWithoutNeed(t *testing.T) {
	api := kubetest.Start(t)
	api.FailOn("list services", -1, apierrors.NewServiceUnavailable("not yet"))
	api.FailOn("watch services", -1, apierrors.NewServiceUnavailable("not yet"))

	n := run(t, api)
	if found, err := n.Services(t.Context(), "ns", false); err != nil || len(found) > 0 {
		t.Errorf("without waiting: %v, %v", found, err)
	}

	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := n.Services(late, "ns", true); err == nil {
		t.Error("services were returned that the API server has not listed")
	}
}

func TestDriversAndClassesAreFoundByName(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "driver.example"}})
	api.Put(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "class"}, Handler: "crun"})

	n := run(t, api)
	if driver, err := n.CSIDriver(t.Context(), "driver.example"); err != nil {
		t.Errorf("driver %v: %v", driver, err)
	}
	if class, err := n.RuntimeClass(t.Context(), "class"); err != nil || class.Handler != "crun" {
		t.Errorf("class %v: %v", class, err)
	}

	// The list is served from memory, and the server is asked for what is not in it.
	if got := n.calls("get csidrivers"); got != 0 {
		t.Errorf("a listed driver was read %d times", got)
	}
	if _, err := n.CSIDriver(t.Context(), "none"); !apierrors.IsNotFound(err) {
		t.Errorf("a driver that is not there: %v", err)
	}
	if got := n.calls("get csidrivers"); got != 1 {
		t.Errorf("one that is not listed was read %d times, want once", got)
	}
}

func TestWhatADriverNeedsIsKnownWithoutWaiting(t *testing.T) {
	api := kubetest.Start(t)
	for name, attached := range map[string]bool{"attached": true, "not-attached": false} {
		api.Put(&storagev1.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       storagev1.CSIDriverSpec{AttachRequired: &attached},
		})
	}

	n := run(t, api)
	if _, err := n.CSIDriver(t.Context(), "attached"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"attached": true, "not-attached": false, "none": true} {
		if needs, known := n.NeedsAttach(name); needs != want || !known {
			t.Errorf("driver %s: needs it %v, known %v", name, needs, known)
		}
	}
}

func TestClaimsAndVolumesAreReadEachTime(t *testing.T) {
	api := kubetest.Start(t)
	api.Put(&v1.PersistentVolumeClaim{ObjectMeta: named("claim")})
	api.Put(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}})
	api.Put(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "attachment"}})

	n := run(t, api)
	if _, err := n.PersistentVolumeClaim(t.Context(), "ns", "claim"); err != nil {
		t.Error(err)
	}
	if _, err := n.PersistentVolume(t.Context(), "pv"); err != nil {
		t.Error(err)
	}
	if _, err := n.VolumeAttachment(t.Context(), "attachment"); err != nil {
		t.Error(err)
	}

	api.Remove("persistentvolumes", "", "pv")
	if _, err := n.PersistentVolume(t.Context(), "pv"); !apierrors.IsNotFound(err) {
		t.Errorf("a volume that has gone: %v", err)
	}
}
