package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

const about = `trivet-csi is a CSI driver for volumes on the disk of its node. Sizes are enforced: each volume
is a btrfs subvolume with a quota in a pool, a file system of its own in an image file, or a directory with a
project quota of the disk's xfs or ext4.

It needs no sidecars: it registers itself with kubelet, and with access to the Kubernetes API it provisions,
grows and deletes the volumes of the claims that were scheduled to its node.

On a node where it runs, or has run, a person has: trivet-csi doctor, volumes, snapshots, pool, export,
import, object and delete; each has --help.`

// options are the flags, checked and completed.
type options struct {
	endpoint        string // path of the socket
	nodeName        string
	dataDir         string
	stateDir        string
	kubeletDir      string
	registrationDir string // "": the driver is not registered
	kubeconfig      string // "": that of the pod
	controllers     []string
	backend         string
	poolSize        int64  // bytes; 0: chosen by the size of the disk
	reserve         int64  // bytes; 0: likewise
	inlineMost      int64  // bytes of all inline volumes; 0: they are refused
	attachMost      int64  // volumes that are attached at a time; 0: they are used without
	volumesMost     int64  // volumes that pods use at a time, where they are not attached; 0: no bound
	tracing         string // where spans go; "": none are made
	metrics         string // where metrics are served; "": nowhere
	probe           bool   // ask a running driver, and end
}

func parse(env *program.Env) (options, error) {
	var o options
	fs := env.Flags(about)
	o.defineWhere(fs)
	fs.StringVar(&o.registrationDir, "registration-dir", "/var/lib/kubelet/plugins_registry",
		`directory that kubelet watches for plugins; "" registers nowhere`)
	fs.StringVar(&o.backend, "backend", "auto",
		"what holds volumes whose class names no backend: auto (the best that works), btrfs, image or quota")
	controllers := fs.String("controllers", "all",
		"which of the built-in controllers run where there is access to the Kubernetes API: all, none, or"+
			" some of "+strings.Join(builtIn, ",")+"; the others are left to sidecars")
	poolSize := fs.String("pool-size", "",
		"how large the btrfs pool may become, e.g. 100Gi; no more is promised to all volumes together"+
			" (default: what the disk has, less --reserve)")
	reserve := fs.String("reserve", "",
		"space of the disk that volumes never get (default: 5% of the disk, at most 2Gi)")
	inlineMost := fs.String("inline-most", "0",
		"how many bytes all inline volumes of pods together may have, e.g. 10Gi; 0 refuses them")
	fs.Int64Var(&o.attachMost, "attach-most", 0,
		"how many volumes may be attached at a time, for orchestrators that attach them before they use them"+
			" (ControllerPublishVolume); 0: volumes are used without being attached")
	fs.Int64Var(&o.volumesMost, "volumes-most", 0,
		"how many volumes pods of the node may use at a time: the scheduler sends no pods with more; 0: no"+
			" bound")
	fs.StringVar(&o.tracing, "tracing-endpoint", "",
		"host:port or unix:///path of an OTLP receiver (gRPC) of spans of calls that are traced; \"\": none")
	fs.StringVar(&o.metrics, metric.Flag, "", metric.Usage)
	fs.BoolVar(&o.probe, "probe", false,
		"ask the driver that serves on --endpoint whether it is ready, and exit: for the probes of a pod")
	if err := env.Parse(fs); err != nil {
		return o, err
	}

	var err error
	if o.controllers, err = parseControllers(*controllers); err != nil {
		return o, &program.UsageError{Err: err}
	}
	if err := o.checkCounts(); err != nil {
		return o, &program.UsageError{Err: err}
	}
	if fs.NArg() > 0 {
		return o, &program.UsageError{Err: fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}
	if err := o.complete(*poolSize, *reserve, *inlineMost); err != nil {
		return o, &program.UsageError{Err: err}
	}

	return o, nil
}

// checkCounts checks the numbers of volumes.
func (o *options) checkCounts() error {
	switch {
	case o.attachMost < 0:
		return fmt.Errorf("--attach-most is %d", o.attachMost)
	case o.volumesMost < 0:
		return fmt.Errorf("--volumes-most is %d", o.volumesMost)
	case o.attachMost > 0 && o.volumesMost > 0:
		return errors.New("--volumes-most is not for volumes that are attached: --attach-most bounds those")
	}
	return nil
}

// defineWhere defines the flags that say where the driver and its volumes are.
func (o *options) defineWhere(fs *flag.FlagSet) {
	fs.StringVar(&o.endpoint, "endpoint", "unix:///var/lib/kubelet/plugins/"+driver.Name+"/csi.sock",
		"socket on which CSI is served")
	fs.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"),
		"name of the Node (default: $NODE_NAME, else the host name)")
	fs.StringVar(&o.dataDir, "data-dir", "/var/lib/trivet/csi",
		"directory of volumes and their records")
	fs.StringVar(&o.stateDir, "state-dir", "/run/trivet/csi",
		"directory of what a reboot ends")
	fs.StringVar(&o.kubeletDir, "kubelet-dir", "/var/lib/kubelet",
		"directory beneath which volumes may be mounted for pods")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "",
		`credentials for the Kubernetes API; "" takes those of the pod it runs in; without either it is a`+
			" plain CSI driver")
}

// parseVerb parses the arguments of a verb, after its flags were defined.
func (o *options) parseVerb(env *program.Env, fs *flag.FlagSet) error {
	env.Args = env.Args[1:]
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := o.completeWhere(); err != nil {
		return &program.UsageError{Err: err}
	}
	return program.RequireRoot()
}

// complete checks the flags and fills in what they left open.
func (o *options) complete(poolSize, reserve, inlineMost string) error {
	err := o.completeWhere()
	if err != nil {
		return err
	}

	known := []string{"auto", btrfspool.Name, loopfile.Name, quotadir.Name}
	if !slices.Contains(known, o.backend) {
		return fmt.Errorf("--backend %q is none of %s", o.backend, strings.Join(known, ", "))
	}
	if err := metric.CheckAddress(o.metrics); err != nil {
		return fmt.Errorf("--%s: %w", metric.Flag, err)
	}
	if o.poolSize, err = parseSize("--pool-size", poolSize); err != nil {
		return err
	}

	if o.reserve, err = parseSize("--reserve", reserve); err != nil {
		return err
	}

	o.inlineMost, err = parseSize("--inline-most", inlineMost)
	return err
}

func (o *options) completeWhere() error {
	var err error
	if o.nodeName == "" {
		if o.nodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("--node-name is not given and there is no host name: %w", err)
		}
	}
	if o.kubeconfig != "" {
		// As the agent names the Node of a host.
		o.nodeName = strings.ToLower(o.nodeName)
	}

	if o.endpoint, err = socket.Path(o.endpoint); err != nil {
		return err
	}

	for flag, dir := range map[string]string{
		"--data-dir":    o.dataDir,
		"--state-dir":   o.stateDir,
		"--kubelet-dir": o.kubeletDir,
	} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%s %q must be an absolute path", flag, dir)
		}
	}

	return nil
}

// parseSize returns the bytes of a quantity such as 100Gi; 0 for "".
func parseSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return 0, fmt.Errorf("%s %q is not a size such as 100Gi", flag, text)
	}
	return q.Value(), nil
}

// stageSecret reads --secret (NAMESPACE/NAME), with which a volume is staged, and returns the line of its
// PersistentVolume that says so.
func stageSecret(s volume.Spec, secret string) (string, error) {
	namespace, name, _ := strings.Cut(secret, "/")
	encrypted := s.Encryption != "" && !s.Snapshot
	switch {
	case !encrypted && secret == "":
		return "", nil
	case !encrypted:
		err := fmt.Errorf("object: --secret is for encrypted volumes, and %s is none", s.ID)
		return "", &program.UsageError{Err: err}
	case namespace == "", name == "", strings.Contains(name, "/"):
		err := fmt.Errorf("object: volume %s is encrypted: --secret NAMESPACE/NAME says with what, not %q",
			s.ID, secret)
		return "", &program.UsageError{Err: err}
	}
	return fmt.Sprintf("    nodeStageSecretRef: {namespace: %q, name: %q}\n", namespace, name), nil
}
