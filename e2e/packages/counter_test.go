package packages

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/ociimage"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/internal/testenv"
)

// counter is a container that prints line 1, line 2, ... five times a second.
type counter struct {
	host
	runtime runtimeapi.RuntimeServiceClient
	pod     string
	id      string
	started int64
}

const (
	repository = "docker.io/library/counter"
	counting   = `i=0; while :; do i=$((i+1)); echo line $i; busybox sleep 0.2; done`
	logs       = "/var/log/counter"
	logFile    = "c.log"
)

// runCounter brings the machine's runtime an image, and runs a container of it on the machine's network:
// there are no plugins.
func (h host) runCounter() counter {
	h.t.Helper()
	h.sh("trivet-cri images import " + h.counterImage())
	conn, err := socket.Dial("unix://" + h.path("/run/trivet/cri.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })

	c := counter{host: h, runtime: runtimeapi.NewRuntimeServiceClient(conn)}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"},
		LogDirectory: logs,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			},
		},
	}
	sandbox, err := c.runtime.RunPodSandbox(h.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		h.t.Fatal(err)
	}

	c.pod = sandbox.PodSandboxId
	created, err := c.runtime.CreateContainer(h.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId:  c.pod,
		SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
			Image:    &runtimeapi.ImageSpec{Image: repository + ":1"},
			Command:  []string{"/bin/busybox", "sh", "-c", counting},
			LogPath:  logFile,
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}

	c.id = created.ContainerId
	start := &runtimeapi.StartContainerRequest{ContainerId: c.id}
	if _, err := c.runtime.StartContainer(h.t.Context(), start); err != nil {
		h.t.Fatal(err)
	}

	c.started = c.status().StartedAt
	return c
}

// path is where the host has a file of the machine.
func (h host) path(file string) string {
	return filepath.Join("/proc", strconv.Itoa(h.Pid()), "root", file)
}

// counterImage writes an archive with busybox.
func (h host) counterImage() string {
	h.t.Helper()
	files := []tarfile.File{
		{Path: "bin/busybox", Mode: 0o755, Source: testenv.Program(h.t, "busybox", "busybox-static")},
	}
	layer, err := ociimage.Layer(files)
	if err != nil {
		h.t.Fatal(err)
	}
	image, err := ociimage.New(v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		Config:       v1.Config{Env: []string{"PATH=/bin"}},
	}, layer)
	if err != nil {
		h.t.Fatal(err)
	}
	index, err := ociimage.Index(image)
	if err != nil {
		h.t.Fatal(err)
	}

	var archive bytes.Buffer
	if err := ociimage.WriteArchive(&archive, index, repository, "1"); err != nil {
		h.t.Fatal(err)
	}
	file := filepath.Join(h.Dir, "counter.tar")
	if err := os.WriteFile(file, archive.Bytes(), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// status is what the runtime says of it, also one that has just been started.
func (c counter) status() *runtimeapi.ContainerStatus {
	c.t.Helper()
	of := &runtimeapi.ContainerStatusRequest{ContainerId: c.id}
	said, err := c.runtime.ContainerStatus(c.t.Context(), of, grpc.WaitForReady(true))
	if err != nil {
		c.t.Fatal(err)
	}
	return said.Status
}

// lines are those that it has printed; none may be missing or there twice.
func (c counter) lines() int {
	c.t.Helper()
	text, err := os.ReadFile(c.path(filepath.Join(logs, logFile)))
	if err != nil {
		c.t.Fatal(err)
	}

	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if !strings.HasSuffix(line, fmt.Sprintf(" line %d\n", n)) && strings.HasSuffix(line, "\n") {
			c.t.Fatalf("line %d of its log is %q: one was lost or came twice", n, line)
		}
	}
	return n
}

// lives checks that it prints lines after what has happened.
func (c counter) lives(what string) {
	c.t.Helper()
	before := c.lines()
	c.eventually(20*time.Second, func() error {
		if now := c.lines(); now < before+3 {
			return fmt.Errorf("after %s the container has printed %d lines, and before %d", what, now, before)
		}
		return nil
	})
}

// goesOn checks that it lives, and is the runtime's as before.
func (c counter) goesOn(what string) {
	c.t.Helper()
	c.lives(what)
	if s := c.status(); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING || s.StartedAt != c.started {
		c.t.Errorf("after %s the container is %v", what, s)
	}
}

// end ends and removes its pod.
func (c counter) end() {
	c.t.Helper()
	stop := &runtimeapi.StopPodSandboxRequest{PodSandboxId: c.pod}
	if _, err := c.runtime.StopPodSandbox(c.t.Context(), stop); err != nil {
		c.t.Fatal(err)
	}
	remove := &runtimeapi.RemovePodSandboxRequest{PodSandboxId: c.pod}
	if _, err := c.runtime.RemovePodSandbox(c.t.Context(), remove); err != nil {
		c.t.Fatal(err)
	}
}
