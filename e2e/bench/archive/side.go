package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/retry"
)

// knownTimeout bounds how long a server may take to hear of an image.
const knownTimeout = 30 * time.Second

// boot starts the machine and both CRI servers.
func (o options) boot(ctx context.Context, m *machine.Machine) ([]*side, error) {
	config := machine.Config{
		Name:   "archive-bench",
		Group:  fmt.Sprintf("/trivet-archive-bench-%d", os.Getpid()),
		Hosts:  "127.0.0.1 localhost\n",
		Keep:   []string{"/var/lib/containerd", "/var/lib/trivet", "/var/lib/cni", "/etc/cni/net.d"},
		Expose: map[string]string{o.dir: o.dir, o.programs: o.programs, o.references: o.references},
	}
	if err := m.Boot(ctx, config); err != nil {
		return nil, err
	}

	file := filepath.Join(o.dir, "containerd.toml")
	if err := os.WriteFile(file, []byte("version = 3\n"), 0o644); err != nil {
		return nil, err
	}

	for _, d := range []machine.Daemon{
		{Name: "trivet-cri", Argv: []string{o.programs + "/trivet-cri", "--oci-runtime=" + o.oci}},
		{Name: "containerd", Argv: []string{o.references + "/containerd", "--config=" + file}},
	} {
		if err := m.Start(d); err != nil {
			return nil, err
		}
	}

	ours := &side{
		machine: m,
		name:    figure.Ours,
		program: "trivet-cri",
		command: []string{o.programs + "/trivet-cri", "images"},
		out:     []string{"-o"},
	}
	theirs := &side{
		machine: m,
		name:    "containerd",
		program: "containerd",
		command: []string{o.references + "/ctr", "--namespace=k8s.io", "images"},
	}
	if err := ours.connect(ctx, "/run/trivet/cri.sock"); err != nil {
		return nil, err
	}

	return []*side{ours, theirs}, theirs.connect(ctx, "/run/containerd/containerd.sock")
}

// side is one CRI server on the machine, and the command that brings images into it.
type side struct {
	machine       *machine.Machine
	name, program string
	command       []string
	out           []string // before the name of the file of an export
	images        runtimeapi.ImageServiceClient

	// client is the processor time of the last command.
	client time.Duration
}

// connect waits until the server answers.
func (s *side) connect(ctx context.Context, path string) error {
	conn, err := bench.AwaitCRI(ctx, s.machine, path, bench.ListsImages)
	if err != nil {
		return fmt.Errorf("%s: %w", s.program, err)
	}
	s.images = runtimeapi.NewImageServiceClient(conn)
	return nil
}

// do runs the side's command.
func (s *side) do(ctx context.Context, args ...string) error {
	line := slices.Concat(s.command, args)
	cmd, err := s.machine.Command(ctx, line[0], line[1:]...)
	if err != nil {
		return err
	}

	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, out.Bytes())
	}

	s.client = cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
	return nil
}

func (s *side) load(ctx context.Context, file string) error { return s.do(ctx, "import", file) }

func (s *side) export(ctx context.Context, file, name string) error {
	return s.do(ctx, slices.Concat([]string{"export"}, s.out, []string{file, name})...)
}

// remove removes an image, and returns when it is gone for CRI's clients, too.
func (s *side) remove(ctx context.Context, name string) error {
	image := &runtimeapi.ImageSpec{Image: name}
	_, err := s.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: image})
	return err
}

// id returns the ID of an image. containerd's CRI server hears of what ctr has done a little later.
func (s *side) id(ctx context.Context, name string) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()

	pauses := retry.Backoff{First: 20 * time.Millisecond, Max: 20 * time.Millisecond}
	err = retry.Until(ctx, pauses, func(ctx context.Context) error {
		image := &runtimeapi.ImageSpec{Image: name}
		response, err := s.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: image})
		if err == nil && response.Image == nil {
			err = fmt.Errorf("%s does not know %s", s.program, name)
		}

		id = response.GetImage().GetId()
		return err
	})
	return id, err
}

// cpu is the processor time that the server has used so far.
func (s *side) cpu() time.Duration { return bench.Clock(s.machine.Find(s.program)) }

// forgetPeak has the kernel begin again with the peak of the server's memory (proc_pid_clear_refs(5)).
func (s *side) forgetPeak() error {
	for _, pid := range s.machine.Find(s.program) {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil {
			return err
		}
	}
	return nil
}

// peak is the largest resident size of the server since forgetPeak, in bytes.
func (s *side) peak() (bytes int64) {
	for _, pid := range s.machine.Find(s.program) {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(data)) {
			var kilobytes int64
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
				bytes += kilobytes << 10
			}
		}
	}
	return bytes
}
