package csivolume_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
	"github.com/trivet-node/trivet/node/volume"
)

// node is a node with one registered driver.
type node struct {
	root    string
	driver  *driver
	cluster *cluster
	mounter *csivolume.Mounter

	// socket is where the driver is registered.
	socket string

	// registry has the driver, inUse is what the Node shows, and end ends the mounter's unstaging.
	registry *csiplugin.Registry
	inUse    *inuse.Volumes
	end      func()
}

// start serves a driver, lets it be registered, and returns a mounter.
func start(t *testing.T, c *cluster) *node {
	t.Helper()
	testenv.Root(t)
	root := testenv.ShortDir(t)
	d := &driver{
		endpoint: filepath.Join(root, "csi.sock"),
		status:   make(chan *registration.RegistrationStatus, 9),
		fail:     map[string]error{},
		called:   make(chan struct{}, 1),
	}

	server := grpc.NewServer()
	csi.RegisterNodeServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	must(t, os.MkdirAll(filepath.Join(root, "plugins_registry"), 0o755))
	reg := filepath.Join(root, "plugins_registry", "fake-reg.sock")
	for _, path := range []string{d.endpoint, reg} {
		l, err := net.Listen("unix", path)
		must(t, err)
		go func() { _ = server.Serve(l) }()
	}

	c.removed = make(chan string, 9)
	n := &node{
		root:    root,
		driver:  d,
		cluster: c,
		socket:  reg,
	}
	n.registry = csiplugin.New(csiplugin.Config{
		Dir:       filepath.Dir(reg),
		Publisher: c,
		Changed:   func() { n.mounter.DriversChanged() },
		Log:       slog.New(slog.DiscardHandler),
	})
	n.restart(t)

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.registry.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
		server.Stop()
	})
	if s := <-d.status; !s.PluginRegistered {
		t.Fatalf("not registered: %s", s.Error)
	}

	return n
}

// restart makes a mounter that knows what is on disk, in place of the one before, which is not heard again.
func (n *node) restart(t *testing.T) {
	t.Helper()
	if n.end != nil {
		n.end()
	}

	n.inUse = &inuse.Volumes{}
	m, err := csivolume.New(csivolume.Config{
		Root:    n.root,
		Node:    "n",
		Nodes:   n.cluster,
		Objects: n.cluster,
		Drivers: n.registry,
		InUse:   n.inUse,
		Log:     slog.New(slog.DiscardHandler),
	})

	must(t, err)
	n.mounter = m
	n.run(t)
}

// run has volumes unstaged until end.
func (n *node) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { n.mounter.Run(ctx) })
	n.end = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(n.end)
}

// awaitUnstaged waits until nothing is left of any staging.
func (n *node) awaitUnstaged(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()

	var left []string
	for range retry.Every(ctx, 5*time.Millisecond) {
		left = nil
		for _, glob := range []string{"fake.csi/*", "volumeDevices/pv*", "volumeDevices/*/*"} {
			found, err := filepath.Glob(filepath.Join(n.root, "plugins/kubernetes.io/csi", glob))
			must(t, err)
			left = append(left, found...)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Fatalf("left: %v", left)
}

// request asks for the persistent volume pv1, with the claim of a pod of that UID.
func request(uid string) volume.Request {
	source := &v1.CSIPersistentVolumeSource{
		Driver:           "fake.csi",
		VolumeHandle:     "handle",
		VolumeAttributes: map[string]string{"a": "1"},
	}

	return volume.Request{
		Name: "data",
		Pod: &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p-" + uid, Namespace: "ns", UID: types.UID(uid)},
		},
		PV: &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv1"},
			Spec: v1.PersistentVolumeSpec{
				AccessModes:            []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
				PersistentVolumeSource: v1.PersistentVolumeSource{CSI: source},
			},
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitCalls waits until the driver has had the calls, of which some are nobody's to wait for.
func awaitCalls(t *testing.T, d *driver, want ...string) {
	t.Helper()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(got) < len(want) {
		select {
		case <-d.called:
			got = append(got, d.said()...)
		case <-ctx.Done():
			t.Fatalf("calls %v, want %v", got, want)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls: %s", diff)
	}
}

func wantCalls(t *testing.T, d *driver, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.said()); diff != "" {
		t.Errorf("calls: %s", diff)
	}
}
