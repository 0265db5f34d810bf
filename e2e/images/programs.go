package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build says how a program is built.
type build struct {
	module string // directory of the module, from the root of the repository
	pkg    string
	flags  string // of the linker
}

// The modules that pin what is built: of Kubernetes' tests, of the control plane, and beside it.
const (
	own          = "."
	conformance  = "e2e/conformance"
	controlPlane = "e2e/controlplane"
	sidecars     = "e2e/peers/sidecars"
	operator     = "e2e/operator"

	kubernetesImages = "k8s.io/kubernetes/test/images/"
	csi              = "github.com/kubernetes-csi/"
	etcd             = "go.etcd.io/etcd/"
)

// builds are the programs of the layers, by name. What is not among them is built already.
var builds = map[string]build{
	"pause":     {module: own, pkg: "./e2e/images/pause"},
	"names":     {module: own, pkg: "./e2e/images/names"},
	"wget":      {module: own, pkg: "./e2e/images/wget"},
	"applets":   {module: own, pkg: "./e2e/images/applets"},
	"webserver": {module: own, pkg: "./e2e/images/webserver"},
	"demo1":     {module: own, pkg: "./e2e/images/demo", flags: "-X main.version=1"},
	"demo2":     {module: own, pkg: "./e2e/images/demo", flags: "-X main.version=2"},

	"hostpath":      {module: own, pkg: "./e2e/images/hostpath"},
	"livenessprobe": {module: own, pkg: "./e2e/images/livenessprobe"},
	"registrar":     {module: own, pkg: "./e2e/images/registrar"},

	"agnhost":           {module: conformance, pkg: kubernetesImages + "agnhost"},
	"apparmor-loader":   {module: conformance, pkg: kubernetesImages + "apparmor-loader"},
	"consume-cpu":       {module: conformance, pkg: kubernetesImages + "resource-consumer/consume-cpu"},
	"nonewprivs":        {module: conformance, pkg: kubernetesImages + "nonewprivs"},
	"resource-consumer": {module: conformance, pkg: kubernetesImages + "resource-consumer"},
	"sample-apiserver":  {module: conformance, pkg: "k8s.io/sample-apiserver"},

	"regression-issue-74839": {module: conformance, pkg: kubernetesImages + "regression-issue-74839"},
	"sample-device-plugin":   {module: conformance, pkg: kubernetesImages + "sample-device-plugin"},

	"sidecar":       {module: own, pkg: "./e2e/images/sidecar"},
	"etcd-operator": {module: operator, pkg: "./cmd/etcd-operator"},
	"etcd-writer":   {module: operator, pkg: "./cmd/etcd-writer"},

	"etcd":        {module: controlPlane, pkg: etcd + "server/v3"},
	"etcd-3.6":    {module: "e2e/peers/etcd-3.6", pkg: etcd + "server/v3"},
	"etcdctl-3.6": {module: "e2e/peers/etcd-3.6", pkg: etcd + "etcdctl/v3"},
	"etcdutl-3.6": {module: "e2e/peers/etcd-3.6", pkg: etcd + "etcdutl/v3"},
	"etcd-3.7":    {module: "e2e/peers/etcd-3.7", pkg: etcd + "server/v3"},
	"etcdctl-3.7": {module: "e2e/peers/etcd-3.7", pkg: etcd + "etcdctl/v3"},
	"etcdutl-3.7": {module: "e2e/peers/etcd-3.7", pkg: etcd + "etcdutl/v3"},
	"metrics-server": {
		module: "e2e/peers/metrics-server",
		pkg:    "sigs.k8s.io/metrics-server/cmd/metrics-server",
		flags:  "-X k8s.io/client-go/pkg/version.gitVersion=v0.9.0",
	},

	"csi-attacher": {
		module: sidecars,
		pkg:    csi + "external-attacher/v4/cmd/csi-attacher",
		flags:  "-X main.version=v4.12.0",
	},
	"csi-provisioner": {
		module: sidecars,
		pkg:    csi + "external-provisioner/v6/cmd/csi-provisioner",
		flags:  "-X main.version=v6.4.0",
	},
	"csi-resizer": {
		module: sidecars,
		pkg:    csi + "external-resizer/v2/cmd/csi-resizer",
		flags:  "-X main.version=v2.2.0",
	},
	"csi-snapshotter": {
		module: sidecars,
		pkg:    csi + "external-snapshotter/v8/cmd/csi-snapshotter",
		flags:  "-X main.version=v8.7.0",
	},
	"snapshot-controller": {
		module: sidecars,
		pkg:    csi + "external-snapshotter/v8/cmd/snapshot-controller",
		flags:  "-X main.version=v8.7.0",
	},
}

// inputs makes what layers consist of when it is asked for, each once: programs, and Debian's packages.
type inputs struct {
	builder *Builder
	dir     string            // of what is made
	built   map[string]string // paths, by the names of programs and packages
}

// program is the path of a program. How far its build is, is said by e2e/progress.sh.
func (in *inputs) program(ctx context.Context, name string) (string, error) {
	how, ok := builds[name]
	if !ok {
		return filepath.Join(in.builder.Programs, name), nil
	}
	if path := in.built[name]; path != "" {
		return path, nil
	}

	path := filepath.Join(in.dir, "bin", name)
	progress := filepath.Join(in.builder.Source, "e2e", "progress.sh")
	cmd := exec.CommandContext(ctx, progress, name, "-trimpath", "-buildvcs=false", "-tags=",
		"-ldflags", "-s -w -buildid= "+how.flags, "-o", path, "--", how.pkg)
	cmd.Dir = filepath.Join(in.builder.Source, how.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")

	// What it says is a line at a time.
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}

	in.built[name] = path
	return path, nil
}

// kubernetes is the directory of the sources of k8s.io/kubernetes.
func (in *inputs) kubernetes(ctx context.Context) (string, error) {
	list := exec.CommandContext(ctx, "go", "-C", filepath.Join(in.builder.Source, conformance),
		"list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	dir, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of k8s.io/kubernetes: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
}
