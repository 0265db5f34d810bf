package runtime_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// run makes a pod with one container, whose termination message goes to file.
func run(t *testing.T, c *runtime.Client, uid, file string, annotations map[string]string) string {
	t.Helper()
	labels := map[string]string{
		runtime.LabelPodUID:       uid,
		runtime.LabelPodName:      "p",
		runtime.LabelPodNamespace: "n",
	}

	sandbox := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: uid},
		Labels:   labels,
	}

	id, err := c.RunSandbox(t.Context(), sandbox, "")
	if err != nil {
		t.Fatal(err)
	}

	annotations[runtime.AnnotationMessagePath] = "/dev/termination-log"
	config := &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: "c", Attempt: 2},
		Image:       &cri.ImageSpec{Image: "run"},
		Annotations: annotations,
		Labels: map[string]string{
			runtime.LabelPodUID:        uid,
			runtime.LabelPodName:       "p",
			runtime.LabelPodNamespace:  "n",
			runtime.LabelContainerName: "c",
		},
		Mounts: []*cri.Mount{{ContainerPath: "/dev/termination-log", HostPath: file}},
	}

	container, err := c.CreateContainer(t.Context(), id, config, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StartContainer(t.Context(), container); err != nil {
		t.Fatal(err)
	}

	return container
}

func TestObservationIsOfOnePodAndFollowsItsStates(t *testing.T) {
	s, c := connect(t)
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("goodbye"), 0o600); err != nil {
		t.Fatal(err)
	}

	run(t, c, "a", file, map[string]string{runtime.AnnotationHash: "7", runtime.AnnotationTermGrace: "12"})
	run(t, c, "b", file, map[string]string{})
	o, err := c.Observe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}

	if len(o.Sandboxes) != 1 || !o.Sandboxes[0].Ready || len(o.Sandboxes[0].IPs) != 1 ||
		len(o.Containers) != 1 {
		t.Fatalf("%+v", o)
	}

	if got := o.Containers[0]; got.State != plan.Running || got.Attempt != 2 || got.Hash != "7" ||
		got.Grace != 12 || got.SandboxID != o.Sandboxes[0].ID {
		t.Errorf("%+v", got)
	}

	s.Exit("c", 3)
	if o, err = c.Observe(t.Context(), "a"); err != nil || o.Containers[0].State != plan.Exited ||
		o.Containers[0].ExitCode != 3 || o.Containers[0].Message != "goodbye" {
		t.Errorf("after the exit: %+v, %v", o.Containers, err)
	}

	if o, err = c.Observe(t.Context(), "nobody"); err != nil || len(o.Sandboxes)+len(o.Containers) != 0 {
		t.Errorf("a pod that is not there: %+v, %v", o, err)
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

	run(t, c, "a", link, map[string]string{})
	s.Exit("c", 1)
	o, err := c.Observe(t.Context(), "a")
	if err != nil || strings.Contains(o.Containers[0].Message, "secret") {
		t.Errorf("%+v, %v", o.Containers, err)
	}
}

func TestWhatIsGoneIsASuccessAndErrorsAreInPlainWords(t *testing.T) {
	s, c := connect(t)
	for _, err := range []error{
		c.StopContainer(t.Context(), "nope", 0),
		c.RemoveContainer(t.Context(), "nope"),
		c.RemoveSandbox(t.Context(), "nope"),
	} {
		if err != nil {
			t.Error(err)
		}
	}

	s.FailOn("RunPodSandbox", errors.New("no network"))
	if _, err := c.RunSandbox(t.Context(), &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{},
	}, ""); err == nil || err.Error() != "no network" {
		t.Errorf("error %v", err)
	}
}

type hearing struct {
	looks  chan string
	listed chan int
}

func (h hearing) Look(uid string)                    { h.looks <- uid }
func (h hearing) Listed(pods map[runtime.Pod]string) { h.listed <- len(pods) }

func TestWatchHearsExits(t *testing.T) {
	s, c := connect(t)
	run(t, c, "a", "", map[string]string{})
	h := hearing{make(chan string, 100), make(chan int, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Watch(ctx, h) }()
	if uid := <-h.looks; uid != "a" || <-h.listed != 1 {
		t.Errorf("listed %q", uid)
	}

	s.Exit("c", 0)
	select {
	case uid := <-h.looks:
		if uid != "a" {
			t.Errorf("heard of %q", uid)
		}

	case <-time.After(5 * time.Second):
		t.Error("the exit was not heard")
	}

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
