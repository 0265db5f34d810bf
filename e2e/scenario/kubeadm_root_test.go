package scenario

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// guest is the cluster as the test of the machine that joins by kubeadm sees it: pods go there. Only
// kubeadm's commands and systemctl run on it.
type guest struct{ *cluster }

// token is the one by which it joins.
const token = "abcdef.0123456789abcdef"

// laid is what kubeadm init takes. The phases that write it into the cluster are kubeadm's own.
const laid = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: ` + token + `
  ttl: 1h0m0s
  usages: [signing, authentication]
  groups: ["system:bootstrappers:kubeadm:default-node-token"]
localAPIEndpoint: {advertiseAddress: 10.99.0.1, bindPort: 6443}
nodeRegistration: {name: %s, criSocket: "unix:///run/trivet/cri.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
controlPlaneEndpoint: 10.99.0.1:6443
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
failCgroupV1: false
failSwapOn: false
rotateCertificates: true
serverTLSBootstrap: true
maxPods: %d
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%}
`

// joining is the configuration of kubeadm join. With cgroup v1, which the configuration of kubelet allows,
// kubeadm wants the check of the system to be ignored by its name.
const joining = `apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    token: ` + token + `
    apiServerEndpoint: 10.99.0.1:6443
    caCertHashes: ["sha256:%x"]
nodeRegistration:
  name: guest
  criSocket: unix:///run/trivet/cri.sock
  ignorePreflightErrors: [SystemVerification]
  kubeletExtraArgs:
  - {name: node-ip, value: 10.99.3.1}
  - {name: node-labels, value: example.org/joined=yes}
`

// bootGuest boots the machine, and dismisses it when the test ends.
func (c *cluster) bootGuest() guest {
	c.t.Helper()
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
		}
		c.do("guest", "dismiss")
		c.kubectl("delete", "node", "guest", "--ignore-not-found")
	})
	c.do("guest", "boot")
	there := *c
	there.node = "guest"
	return guest{&there}
}

// sh runs a script on the machine.
func (g guest) sh(stdin, script string) string {
	g.t.Helper()
	out, err := g.run(4*time.Minute, stdin, g.root+"/bin/trivet-cluster", "exec", "--dir="+g.dir, "guest",
		"sh", "-ec", script)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// lay writes what kubeadm init leaves in a cluster for those who join: its configuration, kubelet's, the
// token, and the rights that go with it.
func (c *cluster) lay(maxPods int) {
	c.t.Helper()
	for _, phase := range []string{"upload-config all", "bootstrap-token"} {
		script := fmt.Sprintf("cat >/tmp/kubeadm.yaml; %s/.trivet/bin/kubeadm init phase %s "+
			"--config=/tmp/kubeadm.yaml --kubeconfig=%s/pki/admin.kubeconfig", c.root, phase, c.dir)
		config := fmt.Sprintf(laid, c.node, maxPods)
		out, err := c.run(time.Minute, config, c.root+"/bin/trivet-cluster", "exec", "--dir="+c.dir,
			"control-plane", "sh", "-ec", script)
		if err != nil {
			c.t.Fatalf("%v\n%s", err, out)
		}
	}
}

// caHash is how kubeadm knows the cluster's CA.
func (c *cluster) caHash() [sha256.Size]byte {
	c.t.Helper()
	text, err := os.ReadFile(c.dir + "/pki/ca.crt")
	if err != nil {
		c.t.Fatal(err)
	}

	block, _ := pem.Decode(text)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		c.t.Fatal(err)
	}

	return sha256.Sum256(ca.RawSubjectPublicKeyInfo)
}

// join runs kubeadm join, and waits until the node is Ready and its serving certificate is signed.
func (g guest) join() {
	g.t.Helper()
	const script = "cat >/tmp/join.yaml; sysctl -qw net.ipv4.ip_forward=1; " +
		"kubeadm join --config=/tmp/join.yaml"
	g.sh(fmt.Sprintf(joining, g.caHash()), script)
	g.do("guest", "network")
	g.kubectl("wait", "node/guest", "--for=condition=Ready", "--timeout=180s")
	g.eventually(time.Minute, "request for a serving certificate", func() error {
		const pending = `{range .items[?(@.spec.username=="system:node:guest")]}{.spec.signerName} ` +
			`{.metadata.name} {.status.certificate}{"\n"}{end}`
		for line := range strings.Lines(g.kubectl("get", "csr", "-o", "jsonpath="+pending)) {
			// Those that have a certificate are of an earlier time.
			fields := strings.Fields(line)
			if len(fields) != 2 || fields[0] != "kubernetes.io/kubelet-serving" {
				continue
			}

			_, err := g.try("certificate", "approve", fields[1])
			return err
		}
		return errors.New("there is none")
	})
}

// shows waits until a field of the Node has a value.
func (g guest) shows(path, want string) {
	g.t.Helper()
	g.eventually(time.Minute, "node's "+path, func() error {
		got, err := g.try("get", "node", "guest", "-o", "jsonpath={"+path+"}")
		if err == nil && got != want {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}

// works runs a pod on the machine, asks for its log and runs a command in it.
func (g guest) works(pod string) {
	g.t.Helper()
	g.pod(pod, counter)
	g.awaitReady(3*time.Minute, pod)
	g.eventually(time.Minute, "log and exec by the serving certificate", func() error {
		if log, err := g.try("logs", pod); err != nil || !strings.Contains(log, "line 1\n") {
			return fmt.Errorf("the log is %q: %w", log, err)
		}
		_, err := g.try("exec", pod, "--", "true")
		return err
	})
}

func (g guest) drain() {
	g.t.Helper()
	g.kubectl("drain", "guest", "--force", "--delete-emptydir-data", "--timeout=60s")
}

// upgradeAgent puts another build of the agent in the place of the one that runs, has kubeadm bring the
// configuration of the cluster to the node, and restarts the service, as an administrator does.
func (g guest) upgradeAgent(version string) {
	g.t.Helper()
	testenv.Program(g.t, "go", "golang-go")
	file := filepath.Join(g.t.TempDir(), "trivet-node")
	build := exec.Command("go", "build", "-o", file, "-ldflags",
		"-s -w -X github.com/trivet-node/trivet/internal/program.Version="+version, "./node/cmd/trivet-node")
	build.Dir = g.root
	if out, err := build.CombinedOutput(); err != nil {
		g.t.Fatalf("build trivet-node %s: %v\n%s", version, err, out)
	}

	program, err := os.ReadFile(file)
	if err != nil {
		g.t.Fatal(err)
	}
	g.sh(string(program), `new=/usr/local/bin/trivet-node.new
		cat >$new; chmod 755 $new; mv $new /usr/local/bin/trivet-node
		kubeadm upgrade node --ignore-preflight-errors=SystemVerification
		systemctl restart kubelet`)
}

// instance is a pod's container and since when it runs.
func (g guest) instance(pod string) string {
	g.t.Helper()
	const status = ".status.containerStatuses[0]"
	return g.kubectl("get", "pod", pod, "-o",
		"jsonpath={"+status+".containerID} {"+status+".state.running.startedAt}")
}

// TestAMachineJoinsIsUpgradedAndResetByKubeadm has trivet-node in the service that kubeadm calls kubelet.
func TestAMachineJoinsIsUpgradedAndResetByKubeadm(t *testing.T) {
	c := open(t)
	g := c.bootGuest()
	c.lay(50)

	g.join()
	version := g.kubectl("get", "node", "guest", "-o", "jsonpath={.status.nodeInfo.kubeletVersion}")
	if !strings.Contains(version, "trivet") {
		t.Errorf("the agent is %s", version)
	}
	g.shows(".status.allocatable.pods", "50")
	g.shows(`.metadata.labels.example\.org/joined`, "yes")
	g.works("joined")
	before := g.instance("joined")

	// The configuration of the cluster changes, and the agent is another build: under a pod that runs.
	c.lay(60)
	g.upgradeAgent("v9.9.9")
	g.shows(".status.nodeInfo.kubeletVersion", strings.SplitN(version, "-", 2)[0]+"-trivet.9.9.9")
	g.shows(".status.allocatable.pods", "60")
	g.works("upgraded")
	if now := g.instance("joined"); now != before {
		t.Errorf("the pod of before has the container %s, and had %s", now, before)
	}
	g.awaitLines(func() string {
		return strings.TrimPrefix(g.kubectl("logs", "joined", "--tail=1"), "line ")
	}, 3)
	g.counted("joined")
	g.neverRestarted("joined")

	g.drain()
	g.kubectl("uncordon", "guest")
	g.works("uncordoned")

	g.drain()
	g.sh("", "kubeadm reset --force --cleanup-tmp-dir --cri-socket=unix:///run/trivet/cri.sock")
	g.kubectl("delete", "node", "guest")
	const look = `systemctl is-active kubelet || true
		find /etc/kubernetes /var/lib/kubelet -type f
		grep -c /var/lib/kubelet/ /proc/mounts || true`
	const nothing = "inactive\n0\n"
	if left := g.sh("", look); left != nothing {
		t.Errorf("after the reset: %s", left)
	}

	// As if it had never been there.
	g.join()
	g.works("again")
	g.drain()
}
