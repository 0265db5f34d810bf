package claims

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/pki"
	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// limit is how long anything may take, on a machine that has much else to do.
var limit = patience.Of(5 * time.Minute)

// timeout is a flag of kubectl: it is limit.
var timeout = "--timeout=" + limit.String()

// plane is an API server with etcd, and the controllers of the controller-manager that are about volumes, on
// the loopback of a network of their own: no port is taken there, whatever else the machine does.
type plane struct {
	t          *testing.T
	root       string // of the repository
	dir        string
	network    string // path of the network namespace
	kubeconfig string
}

const (
	etcdURL  = "http://127.0.0.1:2379"
	peersURL = "http://127.0.0.1:2380"
	port     = 6443
)

// open starts them, with what deploy/csi has for a cluster. They end with the test.
func open(t *testing.T) *plane {
	t.Helper()
	if os.Getenv("TRIVET_CLAIMS") == "" {
		t.Skip("needs the programs of a control plane and of CSI: run by make e2e-claims")
	}

	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{
		t:       t,
		root:    root,
		dir:     testenv.ShortDir(t),
		network: testenv.Netns(t),
	}
	if _, err := output(p.command(t.Context(), "ip", "link", "set", "lo", "up")); err != nil {
		t.Fatal(err)
	}
	p.kubeconfig = filepath.Join(p.dir, "kubeconfig")
	p.startServer()
	p.startControllers()

	deploy := filepath.Join(root, "deploy", "csi")
	kinds := filepath.Join(root, ".trivet/bin/snapshot-kinds.yaml")
	p.kubectl("apply", "-f", kinds)
	for _, kind := range []string{"snapshots", "snapshotclasses", "snapshotcontents"} {
		p.kubectl("wait", "--for=condition=Established", timeout,
			"crd/volume"+kind+".snapshot.storage.k8s.io")
	}
	for _, file := range []string{"driver.yaml", "storageclasses.yaml", "snapshots"} {
		p.kubectl("apply", "-f", filepath.Join(deploy, file))
	}
	return p
}

// startServer starts etcd and the API server, and waits until that is ready.
func (p *plane) startServer() {
	p.t.Helper()
	keys := pki.Dir(p.dir)
	ca, err := keys.Authority("ca")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, err := range []error{
		keys.ServiceAccountKeys(),
		keys.Server(ca, "server", "kube-apiserver", "127.0.0.1"),
		keys.Client(ca, "admin", "admin", "system:masters"),
		keys.Kubeconfig(ca, "admin", fmt.Sprintf("https://127.0.0.1:%d", port), p.kubeconfig),
	} {
		if err != nil {
			p.t.Fatal(err)
		}
	}

	p.start("etcd", nil,
		"--data-dir="+filepath.Join(p.dir, "etcd"),
		"--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL,
		"--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peersURL,
		"--log-level=warn",
	)
	p.start("kube-apiserver", nil,
		"--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		fmt.Sprintf("--secure-port=%d", port),
		"--service-cluster-ip-range=10.96.0.0/24",
		"--client-ca-file="+keys.Path("ca.crt"),
		"--tls-cert-file="+keys.Path("server.crt"),
		"--tls-private-key-file="+keys.Path("server.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+keys.Path("sa.pub"),
		"--service-account-signing-key-file="+keys.Path("sa.key"),
		"--authorization-mode=RBAC",
		"--disable-admission-plugins=ServiceAccount",
	)
	p.eventually("the API server is ready", func() error {
		_, err := p.try("get", "--raw", "/readyz")
		return err
	})
	p.eventually("the namespace default", func() error {
		_, err := p.try("get", "namespace", "default")
		return err
	})
}

// startControllers starts those that bind claims and keep objects from being deleted while they are used.
func (p *plane) startControllers() {
	p.t.Helper()
	p.start("kube-controller-manager", nil,
		"--kubeconfig="+p.kubeconfig,
		"--controllers=persistentvolume-binder-controller,persistentvolume-protection-controller,"+
			"persistentvolumeclaim-protection-controller,namespace-controller",
		"--leader-elect=false",
		"--secure-port=0",
	)
}

// command is one in the network of the plane.
func (p *plane) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + p.network, program}, args...)...)
}

// start starts a reference program until the test ends. What it says is logged if the test fails.
func (p *plane) start(name string, env []string, args ...string) {
	p.t.Helper()
	p.run(filepath.Join(p.root, ".trivet/bin", name), env, args...)
}

func (p *plane) run(program string, env []string, args ...string) {
	p.t.Helper()
	name := filepath.Base(program)
	log, err := os.CreateTemp(p.dir, name+"-")
	if err != nil {
		p.t.Fatal(err)
	}
	// It ends after the test does, not with it.
	cmd := p.command(context.WithoutCancel(p.t.Context()), program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}

	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		stop.Stop()
		if text, _ := os.ReadFile(log.Name()); p.t.Failed() {
			p.t.Logf("%s says at its end:\n%s", name, text[max(0, len(text)-4000):])
		}
		log.Close()
	})
}

// try runs kubectl as an administrator and returns what it prints.
func (p *plane) try(args ...string) (string, error) { return p.tryWith("", args...) }

func (p *plane) tryWith(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), limit)
	defer cancel()
	cmd := p.command(ctx, filepath.Join(p.root, ".trivet/bin/kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

// output runs a command and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, errs.String())
	}
	return string(out), err
}

func (p *plane) kubectl(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (p *plane) apply(text string) {
	p.t.Helper()
	if _, err := p.tryWith(text, "apply", "-f", "-"); err != nil {
		p.t.Fatal(err)
	}
}

// eventually waits for what others do.
func (p *plane) eventually(what string, ok func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), limit)
	defer cancel()

	var err error
	for range retry.Every(ctx, 100*time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	p.t.Fatalf("%s: %v", what, err)
}

// await waits until a field of an object has a value.
func (p *plane) await(object, path, want string) {
	p.t.Helper()
	p.eventually(object+" "+path, func() error {
		got, err := p.try("get", object, "-o", "jsonpath="+path)
		if err == nil && got != want {
			err = fmt.Errorf("is %q, want %q", got, want)
		}
		return err
	})
}

// awaitNone waits until there is no object of some kinds.
func (p *plane) awaitNone(kinds string) {
	p.t.Helper()
	p.eventually("no "+kinds, func() error {
		left, err := p.try("get", kinds, "-A", "-o", "name")
		if err == nil && left != "" {
			err = fmt.Errorf("there are %s", left)
		}
		return err
	})
}
