package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/imageserver"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/cri/streaming"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

// configure reads the file, then the flags that were given over it.
func configure(fs *flag.FlagSet, file string, cfg *config.Config, values map[string]*string) error {
	required := false
	fs.Visit(func(f *flag.Flag) { required = required || f.Name == "config" })
	if err := config.Load(file, required, cfg); err != nil {
		return err
	}
	if len(cfg.CNI.BinDirs) == 0 {
		return fmt.Errorf("%s: cni.bin_dirs: no directory", file)
	}
	values["cni-bin-dir"] = &cfg.CNI.BinDirs[0]
	fs.Visit(func(f *flag.Flag) {
		if field := values[f.Name]; field != nil {
			*field = f.Value.String()
		}
	})
	return cfg.Validate()
}

// serve wires the parts, and serves until ctx ends.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	if cfg.OCIRuntime == "" {
		cfg.OCIRuntime = defaultRuntime()
	}
	runtimes, err := findRuntimes(cfg)
	if err != nil {
		return err
	}
	driver, err := cgroupdriver.New(cfg.CgroupDriver)
	if err != nil {
		return err
	}
	listener, err := socket.Listen(cfg.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	cgroups, err := cgroup.Open()
	if err != nil {
		return &program.CantRunError{What: "cgroups: " + err.Error(), Do: "mount cgroup v2 or the v1 hierarchies below /sys/fs/cgroup"}
	}
	monitorProgram, err := findMonitor(cfg.Monitor.Program)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o711); err != nil {
		return err
	}
	mon, err := monitor.Connect(ctx, monitor.Config{Socket: cfg.Monitor.Socket, StateDir: filepath.Join(cfg.StateDir, "monitor"), Program: monitorProgram,
		LogFile: filepath.Join(cfg.StateDir, "monitor.log"), Log: log})
	if err != nil {
		return fmt.Errorf("trivet-monitor: %w", err)
	}
	defer mon.Close()
	images, err := image.Open(image.Config{Dir: filepath.Join(cfg.RootDir, "images"), Registry: registry.NewClient(registry.Config{HostsDir: cfg.CertsDir}),
		Pinned: cfg.PinnedImages, Log: log})
	if err != nil {
		return err
	}
	defer images.Close()
	roots, err := rootfs.Open(rootfs.Config{Dir: filepath.Join(cfg.RootDir, "rootfs"), StateDir: filepath.Join(cfg.StateDir, "rootfs"), Images: images, Log: log})
	if err != nil {
		return err
	}
	node := network.New(network.Config{ConfDir: cfg.CNI.ConfDir, BinDirs: cfg.CNI.BinDirs, CacheDir: cfg.CNI.CacheDir, Log: log})
	node.Reload(ctx) // half-made sandboxes are released from it
	host := spec.Probe(cgroups.V2)
	boxes, err := sandbox.Open(ctx, sandbox.Config{Dir: filepath.Join(cfg.StateDir, "sandboxes"), FilesDir: filepath.Join(cfg.RootDir, "sandboxes"), Network: node, Monitor: mon, Pause: monitorProgram,
		Runtime: runtimes.find, Cgroup: driver.OCI, Group: driver.Group, OOMMin: host.OOMScoreMin, Log: log,
		UnprivilegedPorts: cfg.UnprivilegedPorts, UnprivilegedICMP: cfg.UnprivilegedICMP})
	if err != nil {
		return err
	}
	events := server.NewEvents()
	containers, err := container.Open(ctx, container.Config{Dir: filepath.Join(cfg.StateDir, "containers"), SeccompDir: cfg.Seccomp, Images: images, Rootfs: roots,
		Monitor: mon, Sandboxes: boxes, Runtime: runtimes.find,
		AllowedAnnotations: runtimes.allowedAnnotations,
		Cgroup:             driver.OCI, Group: driver.Group, Host: host, Log: log,
		AppArmor: apparmor.New("/sys/kernel/security/apparmor", "apparmor_parser")}, events.Put)
	if err != nil {
		return err
	}
	if err := images.Collect(); err != nil {
		log.Warn("unneeded layers are not all deleted", "err", err)
	}
	streams, err := streaming.New(streaming.Config{Addr: cfg.StreamAddr, Monitor: mon, Process: containers.Process, Log: log,
		Netns: func(_ context.Context, id string) (string, error) {
			box, err := boxes.Get(id)
			return boxes.Netns(box), err
		}})
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(16<<20), grpc.MaxSendMsgSize(16<<20))
	runtimeapi.RegisterRuntimeServiceServer(g, server.New(server.Config{Version: program.Version, Sandboxes: boxes, Containers: containers, Images: images,
		Rootfs: roots, Network: node, Streaming: streams, Events: events, Cgroups: cgroups, Driver: driver,
		Handlers: runtimes.names(), Info: cfg, Log: log}))
	runtimeapi.RegisterImageServiceServer(g, imageserver.New(images, roots))
	archives, err := socket.Listen(importSocket(cfg.StateDir))
	if err != nil {
		return err
	}
	defer archives.Close()
	all, ctx := errgroup.WithContext(ctx)
	if err := node.Collect(ctx, boxes.Live(), filepath.Join(cfg.StateDir, "sandboxes")); err != nil {
		log.Warn("not all networks of pods that are gone are released", "err", err)
	}
	all.Go(func() error { return node.Run(ctx) })
	all.Go(func() error { return containers.Run(ctx) })
	all.Go(func() error { return streams.Run(ctx) })
	all.Go(func() error { return g.Serve(listener) })
	all.Go(func() error { return importer.New(images, log).Run(ctx, archives) })
	all.Go(func() error { <-ctx.Done(); g.Stop(); return nil })
	all.Go(func() error { return awaitDismissal(ctx, mon, log) })
	log.Info("serving CRI", "socket", cfg.Socket)
	if err := all.Wait(); !errors.Is(err, errDismissed) {
		return err
	}
	return nil
}

func findMonitor(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if own, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(own), "trivet-monitor"); isFile(beside) {
			return beside, nil
		}
	}
	found, err := exec.LookPath("trivet-monitor")
	if err != nil {
		return "", &program.CantRunError{What: "trivet-monitor is neither beside trivet-cri nor in PATH", Do: "install it there, or name it with --monitor"}
	}
	return found, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
