package runtime_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func connect(t *testing.T) (*runtimetest.Server, *runtime.Client) {
	t.Helper()
	s := runtimetest.Start(t)
	conn, err := socket.Dial(s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return s, runtime.New(conn, conn, slog.New(slog.DiscardHandler))
}

func labels(uid, container string) map[string]string {
	out := map[string]string{
		runtime.LabelPodUID:       uid,
		runtime.LabelPodName:      "p",
		runtime.LabelPodNamespace: "n",
	}
	if container != "" {
		out[runtime.LabelContainerName] = container
	}
	return out
}

// sandbox makes a sandbox of the pod n/p with this UID.
func sandbox(t *testing.T, c *runtime.Client, uid string, attempt uint32) string {
	t.Helper()
	id, err := c.RunSandbox(t.Context(), &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{
			Name:      "p",
			Namespace: "n",
			Uid:       uid,
			Attempt:   attempt,
		},
		Labels:       labels(uid, ""),
		Annotations:  map[string]string{"of": uid},
		LogDirectory: "/logs/" + uid,
	}, "")
	if err != nil {
		t.Fatal(err)
	}

	return id
}

// container starts an instance of container c in a sandbox.
func container(
	t *testing.T, c *runtime.Client, uid, sandbox string, attempt uint32, mods ...func(*cri.ContainerConfig),
) string {
	t.Helper()
	config := &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: "c", Attempt: attempt},
		Image:       &cri.ImageSpec{Image: "run"},
		Labels:      labels(uid, "c"),
		Annotations: map[string]string{},
		LogPath:     "c.log",
	}

	for _, mod := range mods {
		mod(config)
	}

	id, err := c.CreateContainer(t.Context(), sandbox, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}

	return id
}

// message gives a container a file for its termination message.
func message(file string) func(*cri.ContainerConfig) {
	return func(c *cri.ContainerConfig) {
		c.Annotations[runtime.AnnotationMessagePath] = "/dev/termination-log"
		c.Mounts = append(c.Mounts, &cri.Mount{ContainerPath: "/dev/termination-log", HostPath: file})
	}
}

func observe(t *testing.T, c *runtime.Client, uid string) plan.Observed {
	t.Helper()
	o, err := c.Observe(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestObservationIsOfOnePodAndFollowsItsStates(t *testing.T) {
	s, c := connect(t)
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("goodbye"), 0o600); err != nil {
		t.Fatal(err)
	}

	container(t, c, "a", sandbox(t, c, "a", 0), 2, message(file), func(config *cri.ContainerConfig) {
		config.Annotations[runtime.AnnotationHash] = "7"
		config.Annotations[runtime.AnnotationTermGrace] = "12"
	})

	container(t, c, "b", sandbox(t, c, "b", 0), 0)

	o := observe(t, c, "a")
	if len(o.Sandboxes) != 1 || len(o.Containers) != 1 {
		t.Fatalf("%+v", o)
	}

	made := o.Sandboxes[0]
	if !made.Ready || len(made.IPs) != 1 || made.Annotations["of"] != "a" {
		t.Errorf("sandbox %+v", made)
	}

	got := o.Containers[0]
	if got.State != plan.Running || got.Attempt != 2 || got.SandboxID != made.ID || got.Name != "c" {
		t.Errorf("container %+v", got)
	}
	if got.Hash != "7" || got.Grace != 12 {
		t.Errorf("annotations of container %+v", got)
	}

	s.Exit("c", 3)
	got = observe(t, c, "a").Containers[0]
	if got.State != plan.Exited || got.ExitCode != 3 || got.Message != "goodbye" || got.Finished.IsZero() {
		t.Errorf("after the exit: %+v", got)
	}
	if o := observe(t, c, "nobody"); len(o.Sandboxes)+len(o.Containers) != 0 {
		t.Errorf("a pod that is not there: %+v", o)
	}
}

// A look at a pod in which nothing has changed costs two lists and nothing else.
func TestWhatIsKnownIsNotAskedForAgain(t *testing.T) {
	s, c := connect(t)
	container(t, c, "a", sandbox(t, c, "a", 0), 0)
	asked := func(state string, want int) {
		t.Helper()
		for range 3 {
			observe(t, c, "a")
		}

		if n := s.Asked("ContainerStatus"); n != want {
			t.Errorf("%s: %d questions for the container, want %d", state, n, want)
		}
		if n := s.Asked("PodSandboxStatus"); n != 1 {
			t.Errorf("%s: %d questions for the sandbox", state, n)
		}
	}

	asked("running", 1)
	s.Exit("c", 0)
	asked("exited", 2)
}

func TestResourcesAreAskedForAgainAfterAnUpdate(t *testing.T) {
	s, c := connect(t)
	sandboxID := sandbox(t, c, "a", 0)
	id := container(t, c, "a", sandboxID, 0, func(config *cri.ContainerConfig) {
		config.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{
			CpuShares:          512,
			CpuPeriod:          100_000,
			MemoryLimitInBytes: 1 << 20,
		}}
	})
	resources := func(want plan.Resources) {
		t.Helper()
		if got := observe(t, c, "a").Containers[0].Resources; got == nil || *got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}

	want := plan.Resources{CPUShares: 512, CPUPeriod: 100_000, Memory: 1 << 20}
	resources(want)

	if err := c.UpdateContainer(t.Context(), id, &runtime.Resources{CpuQuota: 50_000}); err != nil {
		t.Fatal(err)
	}
	want.CPUQuota = 50_000
	resources(want)

	for _, absent := range []error{
		status.Error(codes.Unimplemented, "method is not served"),
		status.Error(codes.Unknown, "not implemented yet"),
	} {
		s.FailOn("UpdatePodSandboxResources", absent)
		if err := c.UpdateSandbox(t.Context(), sandboxID, nil, &runtime.Resources{}); err != nil {
			t.Errorf("a runtime that does not want to know: %v", err)
		}
	}

	s.FailOn("UpdatePodSandboxResources", status.Error(codes.Unknown, "refused"))
	if err := c.UpdateSandbox(t.Context(), sandboxID, nil, &runtime.Resources{}); err == nil {
		t.Error("what the runtime refuses is a success")
	}
}

func TestSandboxThatIsStoppedHasNoAddresses(t *testing.T) {
	_, c := connect(t)
	id := sandbox(t, c, "a", 0)
	if ips := observe(t, c, "a").Sandboxes[0].IPs; len(ips) != 1 {
		t.Errorf("ready: %v", ips)
	}
	if err := c.StopSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, c, "a").Sandboxes[0]; got.Ready || len(got.IPs) > 0 {
		t.Errorf("stopped: %+v", got)
	}
}

func TestErrorsOfTheRuntimeFailAnObservation(t *testing.T) {
	s, c := connect(t)
	container(t, c, "a", sandbox(t, c, "a", 0), 0)
	for _, method := range []string{
		"ListPodSandbox", "PodSandboxStatus", "ListContainers", "ContainerStatus",
	} {
		s.FailOn(method, errors.New("no "+method))
		if _, err := c.Observe(t.Context(), "a"); err == nil || err.Error() != "no "+method {
			t.Errorf("%s: %v", method, err)
		}
		s.FailOn(method, nil)
	}
}

func TestEndOfTheLogStandsForAMessageThatWasNotLeft(t *testing.T) {
	s, c := connect(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "message")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	log := "2026-01-01T00:00:00Z stdout F last words\n"
	if err := os.WriteFile(filepath.Join(dir, "c.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}

	for policy, want := range map[v1.TerminationMessagePolicy]string{
		v1.TerminationMessageFallbackToLogsOnError: "last words\n",
		v1.TerminationMessageReadFile:              "",
	} {
		uid := string(policy)
		id, err := c.RunSandbox(t.Context(), &cri.PodSandboxConfig{
			Metadata:     &cri.PodSandboxMetadata{Uid: uid},
			Labels:       labels(uid, ""),
			LogDirectory: dir,
		}, "")
		if err != nil {
			t.Fatal(err)
		}

		container(t, c, uid, id, 0, message(file), func(config *cri.ContainerConfig) {
			config.Annotations[runtime.AnnotationMessagePolicy] = uid
		})
		s.Exit("c", 1)
		if got := observe(t, c, uid).Containers[0].Message; got != want {
			t.Errorf("%s: %q, want %q", policy, got, want)
		}
	}
}

func TestTerminationMessageIsNotReadThroughALink(t *testing.T) {
	s, c := connect(t)
	dir := t.TempDir()
	secret, link := filepath.Join(dir, "secret"), filepath.Join(dir, "message")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}

	container(t, c, "a", sandbox(t, c, "a", 0), 0, message(link))
	s.Exit("c", 1)
	if got := observe(t, c, "a").Containers[0].Message; strings.Contains(got, "secret") {
		t.Errorf("message %q", got)
	}
}
