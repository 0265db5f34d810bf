package network

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/internal/retry"
)

func TestNetworkIsReadyWhenItsConfigurationAndItsPluginsAre(t *testing.T) {
	f := open(t)
	f.Reload(t.Context())
	if err := f.Ready(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Errorf("without a configuration: %v", err)
	}
	if _, err := f.Setup(t.Context(), Attachment{ID: "pod"}); !errors.Is(err, ErrNotReady) {
		t.Errorf("a pod: %v", err)
	}

	f.write("net.d/00-broken.conflist", "{", 0o644)
	f.Reload(t.Context())
	if err := f.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "00-broken.conflist") {
		t.Errorf("error %v does not name the broken file", err)
	}

	// A broken file does not hide a whole one. A plugin that is not ready is asked again.
	f.write("fail-STATUS", "", 0o644)
	f.write("net.d/10.conflist", conflist, 0o644)
	f.Reload(t.Context())
	if err := f.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "made to fail") {
		t.Errorf("a plugin that is not ready: %v", err)
	}

	f.remove("fail-STATUS")
	if err := f.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfigurationThatComesLaterIsNoticed(t *testing.T) {
	f := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()

	// Renamed into its place, so that it is never seen half written.
	f.write("new", conflist, 0o644)
	if err := os.Rename(f.path("new"), f.path("net.d/10.conflist")); err != nil {
		t.Fatal(err)
	}

	for range retry.Every(ctx, time.Millisecond) {
		if f.Ready(ctx) == nil {
			break
		}
	}

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPodIsJoinedWithItsPortsAndReleased(t *testing.T) {
	f := open(t)
	f.ready()
	pod := Attachment{
		ID:        "pod",
		Netns:     f.write("netns", "", 0o600),
		Name:      "web",
		Namespace: "shop",
		UID:       "1",
		Ports:     []PortMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}},
		DNS:       map[string]any{"servers": []string{"192.0.2.1"}},
	}

	ips, err := f.Setup(t.Context(), pod)
	if err != nil || len(ips) != 1 || ips[0].String() != "10.1.2.3" {
		t.Fatalf("addresses %v, %v", ips, err)
	}

	input, err := os.ReadFile(f.path("joined/pod"))
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		"K8S_POD_NAMESPACE=shop",
		"K8S_POD_NAME=web",
		`"hostPort":80`,
		"192.0.2.1",
	} {
		if !strings.Contains(string(input), want) {
			t.Errorf("the input of the plugin has no %s: %s", want, input)
		}
	}

	// The cached ADD serves, though the configuration is gone.
	f.remove("net.d/10.conflist")
	f.Reload(t.Context())
	for range 2 {
		if err := f.Teardown(t.Context(), pod); err != nil {
			t.Error(err)
		}
	}

	f.checkJoined()
}

func TestJoinThatFailsIsUndone(t *testing.T) {
	f := open(t)
	f.ready()
	f.write("fail-ADD", "", 0o644)
	pod := Attachment{
		ID:        "pod",
		Netns:     f.write("netns", "", 0o600),
		Name:      "web",
		Namespace: "shop",
	}

	_, err := f.Setup(t.Context(), pod)
	if err == nil || !strings.Contains(err.Error(), "shop/web") ||
		!strings.Contains(err.Error(), "made to fail") {
		t.Errorf("error %v does not name the pod and the cause", err)
	}

	f.checkJoined()
}

// After a kill in the middle of an ADD the cache has nothing.
func TestPodIsReleasedWithoutACachedJoin(t *testing.T) {
	f := open(t)
	f.ready()
	f.write("joined/pod", "", 0o644)
	pod := Attachment{
		ID:        "pod",
		Netns:     f.path("gone"),
		Name:      "web",
		Namespace: "shop",
	}

	f.write("fail-DEL", "", 0o644)
	if err := f.Teardown(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "shop/web") {
		t.Errorf("error %v does not name the pod", err)
	}

	f.remove("fail-DEL")
	if err := f.Teardown(t.Context(), pod); err != nil {
		t.Error(err)
	}

	f.checkJoined()
}

func TestAddressesAreThoseInsideThePod(t *testing.T) {
	index := func(i int) *int { return &i }
	result := &types100.Result{
		Interfaces: []*types100.Interface{{Name: "bridge"}, {Name: "eth0", Sandbox: "/netns"}},
		IPs: []*types100.IPConfig{
			{Interface: index(0)},
			{Interface: index(1)},
			{},
			{Interface: index(7)},
		},
	}

	for i := range result.IPs {
		result.IPs[i].Address.IP = []byte{10, 0, 0, byte(i)}
	}

	got := addresses(result)
	if len(got) != 3 || got[0].String() != "10.0.0.1" || got[1].String() != "10.0.0.2" ||
		got[2].String() != "10.0.0.3" {
		t.Errorf("addresses %v", got)
	}
}

func TestCollectReleasesOnlyPodsThatAreGone(t *testing.T) {
	f := open(t)
	f.ready()
	own := f.path("sandboxes")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}

	for id, netns := range map[string]string{
		"live":           f.write("sandboxes/live", "", 0o600),
		"half-removed":   f.write("sandboxes/half-removed", "", 0o600),
		"rebooted":       filepath.Join(own, "rebooted"),
		"theirs":         f.write("sandboxes-of-another", "", 0o600),
		"theirs-removed": f.path("gone"),
	} {
		if _, err := f.Setup(t.Context(), Attachment{ID: id, Netns: netns}); err != nil {
			t.Fatal(err)
		}
	}

	lives := func(id string) bool { return id == "live" }
	for range 2 {
		if err := f.Collect(t.Context(), lives, own); err != nil {
			t.Fatal(err)
		}

		f.checkJoined("live", "theirs")
		if f.has("collected") {
			t.Error("garbage is collected beside another runtime, whose ADD may be under way")
		}
	}

	// Without the others, what is in no cache goes.
	f.remove("sandboxes-of-another")
	if err := f.Collect(t.Context(), lives, own); err != nil {
		t.Fatal(err)
	}

	f.checkJoined("live")
	valid, err := os.ReadFile(f.path("collected"))
	if err != nil || !strings.Contains(string(valid), `"containerID":"live"`) ||
		strings.Contains(string(valid), `"containerID":"theirs"`) {
		t.Errorf("valid for the collection: %s, %v", valid, err)
	}
}

func TestNothingIsCollectedBesideTheFirstADDOfAnotherRuntime(t *testing.T) {
	f := open(t)
	f.ready()
	own, pins := f.path("own"), f.path("pins")
	if err := os.Mkdir(pins, 0o755); err != nil {
		t.Fatal(err)
	}
	f.cfg.PinDir = pins

	// It has made the namespace; the cache has nothing yet.
	f.write("pins/cni-1", "", 0o600)
	collect := func() {
		t.Helper()
		if err := f.Collect(t.Context(), func(string) bool { return false }, own); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	if f.has("collected") {
		t.Error("garbage is collected beside another runtime")
	}

	f.remove("pins/cni-1")
	f.cfg.PinDir = f.path("nowhere")
	collect()
	if !f.has("collected") {
		t.Error("garbage is not collected where there is no other runtime")
	}
}
