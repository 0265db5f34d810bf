// Package nodeimage makes images of kind nodes without a network but Debian's archive: a root file system of
// Debian, the files that kind's base image has, which are read from kind's module, and the programs of
// Kubernetes and containerd that this repository builds; or, in a second image, trivet in their place.
package nodeimage

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/kind/debian"
	"github.com/trivet-node/trivet/e2e/kind/part"
)

// The names of the images.
const (
	Node   = "trivet-kind/node"
	Trivet = "trivet-kind/trivet"

	root = "trivet-kind/debian"
)

// suite is the newest one whose systemd works on cgroup v1, too.
const suite = "bookworm"

// packages are those of kind's base image, but what needs modules that a node of a test does not use (NFS,
// iSCSI, FUSE); and runc, which kind builds.
var packages = []string{
	"bash", "btrfs-progs", "ca-certificates", "conntrack", "curl", "e2fsprogs", "ethtool", "iproute2",
	"iptables", "jq", "kmod", "libseccomp2", "mount", "nftables", "pigz", "procps", "runc", "systemd",
	"util-linux", "xfsprogs",
}

//go:embed files
var files embed.FS

// Builder makes the images.
type Builder struct {
	Dir    string // of what is made on the way
	Cache  string // of what is made once
	Source string // root of the repository
	Bin    string // reference programs

	// Kubernetes is the directory with kubeadm, kubectl and kubelet. Their version is that of the nodes.
	Kubernetes string

	Ours   string // trivet's programs
	Mirror string // of Debian; "": that of the host's apt

	// Docker is a command of Docker's.
	Docker func(ctx context.Context, args ...string) *exec.Cmd

	// Out receives how far it is.
	Out io.Writer
}

// Root makes the root file system, unless there is one.
func (b *Builder) Root(ctx context.Context) error {
	return debian.Root{
		Suite:    suite,
		Mirror:   b.Mirror,
		Packages: packages,
		Tools:    filepath.Join(b.Cache, "debootstrap"),
		Archives: filepath.Join(b.Cache, "archives"),
		Out:      b.Out,
	}.Write(ctx, b.rootFile())
}

// HasRoot reports whether there is a root file system.
func (b *Builder) HasRoot() bool {
	_, err := os.Stat(b.rootFile())
	return err == nil
}

func (b *Builder) rootFile() string { return filepath.Join(b.Cache, suite+".tar") }

// BuildNode makes the image Node. It is quick where nothing has changed.
func (b *Builder) BuildNode(ctx context.Context) error {
	base, err := b.baseSpec(ctx)
	if err != nil {
		return err
	}

	t, err := b.node(ctx, "node")
	if err != nil {
		return err
	}

	t.edit("etc/containerd/config.toml", withMirrors)
	t.write("etc/containerd/cri-base.json", base, 0o644)
	t.link(filepath.Join(b.Kubernetes, "kubelet"), "usr/bin/kubelet")
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		t.link(filepath.Join(b.Bin, name), "usr/local/bin/"+name)
	}
	for _, name := range []string{"host-local", "loopback", "portmap"} {
		t.link(filepath.Join(b.Bin, "cni", name), "opt/cni/bin/"+name)
	}

	return b.build(ctx, t, "containerd", Node)
}

// BuildTrivet makes the image Trivet. It has no containerd, and kubelet in its place, which a drop-in has its
// service not run (part.DropIn).
func (b *Builder) BuildTrivet(ctx context.Context) error {
	t, err := b.node(ctx, "trivet")
	if err != nil {
		return err
	}

	t.link(filepath.Join(b.Ours, "trivet-node"), part.TrivetNode)
	t.embed("files/trivet-node.conf", part.NodeDropIn, 0o644)
	t.link(filepath.Join(b.Kubernetes, "kubelet"), part.Kubelet)
	t.write("etc/default/kubelet", []byte("KUBELET_EXTRA_ARGS=\n"), 0o644)

	t.link(filepath.Join(b.Ours, "trivet-cri"), "usr/local/bin/trivet-cri")
	t.link(filepath.Join(b.Ours, "trivet-monitor"), "usr/local/bin/trivet-monitor")
	t.link(
		filepath.Join(b.Source, "deploy/cri/trivet-cri.service"),
		"etc/systemd/system/trivet-cri.service",
	)
	t.write("etc/trivet/cri.toml", []byte(CRIConfig), 0o644)
	t.write("etc/crictl.yaml", []byte("runtime-endpoint: "+CRISocket+"\n"), 0o644)

	// What kind calls to load images.
	for _, name := range []string{"ctr", "containerd"} {
		t.symlink("/usr/local/bin/trivet-cri", "usr/local/sbin/"+name)
	}

	return b.build(ctx, t, "trivet-cri", Trivet)
}

// node is the tree of an image in the directory of that name, without a runtime and an agent.
func (b *Builder) node(ctx context.Context, name string) (*tree, error) {
	if err := b.importRoot(ctx); err != nil {
		return nil, err
	}

	kind, err := b.kindFiles(ctx)
	if err != nil {
		return nil, err
	}

	version, err := part.KubernetesIn(ctx, b.Kubernetes)
	if err != nil {
		return nil, err
	}

	t, err := newTree(filepath.Join(b.Dir, name))
	if err != nil {
		return nil, err
	}

	t.copyAll(kind)
	t.write("kind/version", []byte(version), 0o644)
	t.embed("files/trivet-entrypoint", "usr/local/bin/trivet-entrypoint", 0o755)
	t.embed("files/default-storage.yaml", "kind/manifests/default-storage.yaml", 0o644)
	t.link(filepath.Join(b.Kubernetes, "kubeadm"), "usr/bin/kubeadm")
	t.link(filepath.Join(b.Kubernetes, "kubectl"), "usr/bin/kubectl")
	t.link(filepath.Join(b.Bin, "crictl"), "usr/local/bin/crictl")
	return t, t.err
}

// What trivet-cri is told on a node of kind, and where it is found.
const (
	CRIConfig = "cgroup_driver = \"systemd\"\n"
	CRISocket = "unix:///run/trivet/cri.sock"
)

// importRoot makes Docker's image of the root file system, unless there is one of this root.
func (b *Builder) importRoot(ctx context.Context) error {
	if b.Docker(ctx, "image", "inspect", root).Run() == nil {
		return nil
	}
	return b.run(b.Docker(ctx, "import", b.rootFile(), root))
}

// build makes an image that starts a unit as the runtime.
func (b *Builder) build(ctx context.Context, t *tree, runtime, image string) error {
	t.embedBeside("files/node.Dockerfile", "Dockerfile")
	if t.err != nil {
		return fmt.Errorf("files of image %s: %w", image, t.err)
	}
	unit := "--build-arg=RUNTIME=" + runtime
	return b.run(b.Docker(ctx, "build", "--network=none", unit, "--tag="+image, t.dir))
}

// run runs a command of Docker's and shows how far it is; its error has what it said.
func (b *Builder) run(cmd *exec.Cmd) error {
	var said strings.Builder
	out := io.MultiWriter(b.Out, &said)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// kindFiles is the directory of the files of kind's base image, in the module that this repository pins.
func (b *Builder) kindFiles(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "sigs.k8s.io/kind")
	cmd.Dir = filepath.Join(b.Source, "e2e/peers/kind")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of kind: %w", err)
	}

	dir, err := moduleDir(out)
	if err != nil {
		return "", err
	}

	dir = filepath.Join(dir, "images/base/files")
	_, err = os.Stat(dir)
	return dir, err
}

// withMirrors changes what containerd on a node of kind does: it asks the mirrors of hosts.toml, and it
// leaves a negative OOM score away that it may not set.
func withMirrors(config string) (string, error) {
	const (
		mayNot = "restrict_oom_score_adj = false"
		may    = "restrict_oom_score_adj = true"

		mirrors = "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"  config_path = \"/etc/containerd/certs.d\"\n"
	)
	if !strings.Contains(config, mayNot) {
		return "", errors.New("containerd's configuration of this version of kind has no " + mayNot)
	}

	return strings.Replace(config, mayNot, may, 1) + mirrors, nil
}
