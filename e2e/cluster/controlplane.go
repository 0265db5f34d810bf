package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/pki"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const controlPlaneName = "control-plane"

// identities that the control plane and the daemons on the nodes have, beside the nodes' own.
var identities = []struct {
	name, user string
	groups     []string
}{
	{"admin", "trivet-admin", []string{"system:masters"}},
	{"controller-manager", "system:kube-controller-manager", nil},
	{"scheduler", "system:kube-scheduler", nil},
	{"proxy", "system:kube-proxy", nil},
	{
		"coredns",
		"system:serviceaccount:kube-system:coredns",
		[]string{"system:serviceaccounts", "system:authenticated"},
	},
	{
		"trivet-netd",
		"system:serviceaccount:kube-system:trivet-netd",
		[]string{"system:serviceaccounts", "system:authenticated"},
	},
}

func (c *Cluster) makeIdentities(plan Plan) error {
	d := c.pki()
	ca, err := d.Authority("ca")
	if err != nil {
		return err
	}

	front, err := d.Authority("front-proxy-ca")
	if err != nil {
		return err
	}
	if err := d.ServiceAccountKeys(); err != nil {
		return err
	}

	if err := d.Server(ca, "apiserver", "kube-apiserver", gateway.String(), "127.0.0.1", "localhost", apiService,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"); err != nil {
		return err
	}

	if err := d.Client(ca, "apiserver-kubelet-client", "kube-apiserver-kubelet-client"); err != nil {
		return err
	}
	if err := d.Client(front, "front-proxy-client", "front-proxy-client"); err != nil {
		return err
	}

	for _, id := range identities {
		if err := c.identity(ca, id.name, id.user, id.groups...); err != nil {
			return err
		}
	}

	for _, n := range plan.Nodes {
		if err := c.identity(ca, n.Name, "system:node:"+n.Name, "system:nodes"); err != nil {
			return err
		}

		// Its driver may write the volumes of its own node only (deploy/csi/policy.yaml), so each has an
		// identity of its own.
		err := c.identity(ca, csiIdentity(n), "csi.trivet.dev:node:"+n.Name, "csi.trivet.dev:nodes")
		if err != nil {
			return err
		}
	}

	if err := c.bootstrapToken(ca); err != nil {
		return err
	}

	return d.Kubeconfig(ca, "admin", fmt.Sprintf("https://127.0.0.1:%d", plan.Port), c.Kubeconfig())
}

// csiIdentity names the identity of a node's CSI driver.
func csiIdentity(n Node) string { return n.Name + "-csi" }

// identity makes a client certificate and pki/NAME.kubeconfig, good inside the cluster.
func (c *Cluster) identity(ca *pki.Authority, name, user string, groups ...string) error {
	if err := c.pki().Client(ca, name, user, groups...); err != nil {
		return err
	}
	return c.pki().Kubeconfig(ca, name, apiServer, c.pki().Path(name+".kubeconfig"))
}

func (c *Cluster) startControlPlane(ctx context.Context, plan Plan) error {
	m := c.controlPlane()
	config := machine.Config{
		Name:   controlPlaneName,
		Group:  c.group(controlPlaneName),
		Hosts:  hosts(controlPlaneName, gateway.String()),
		Expose: samePath(c.Dir, c.Bin, c.Programs, c.Images),
	}
	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := lan.Switch(m.Pid(), netip.PrefixFrom(gateway, lanBits)); err != nil {
		return err
	}

	daemons := []machine.Daemon{c.etcd(), c.apiServer()}
	if _, err := os.Stat(c.program("trivet-images")); err == nil {
		daemons = append(
			daemons,
			c.daemon("registry",
				c.program("trivet-images"), "serve", "--dir="+c.Images, "--listen="+registry),
		)
	}

	for _, d := range daemons {
		if err := m.Start(d); err != nil {
			return err
		}
	}

	c.say("control plane started")
	return c.startProxy(plan.Port)
}

// startControllers starts what needs the API server.
func (c *Cluster) startControllers() error {
	if err := os.WriteFile(c.path("machines", controlPlaneName, "Corefile"), []byte(c.corefile()), 0o644); err != nil {
		return err
	}
	for _, d := range []machine.Daemon{c.controllerManager(), c.scheduler(),
		c.daemon("coredns",
			c.reference("coredns"), "-conf", c.path("machines", controlPlaneName, "Corefile"))} {
		if err := c.controlPlane().Start(d); err != nil {
			return err
		}
	}
	return nil
}

// startServiceProxy makes Services reachable for the API server, which calls webhooks and aggregated APIs by
// them. kube-proxy waits half a minute for the Node that it is told to be; the control plane has none, so it
// goes by the name of one that is there.
func (c *Cluster) startServiceProxy(plan Plan) error {
	// A Service's address is translated on the way out, which a packet without a route never goes.
	if err := lan.Route(c.controlPlane().Pid(), netip.MustParsePrefix(serviceCIDR), nodeIP(0)); err != nil {
		return err
	}
	return c.controlPlane().Start(c.kubeProxy(plan.Nodes[0].Name, c.pki().Path("proxy.kubeconfig")))
}

func (c *Cluster) kubeProxy(node, kubeconfig string) machine.Daemon {
	return c.daemon("kube-proxy", c.reference("kube-proxy"),
		"--kubeconfig="+kubeconfig,
		"--hostname-override="+node,
		"--proxy-mode=nftables",
		"--cluster-cidr="+podCIDR,
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
		"--healthz-bind-address=127.0.0.1:10256",
		"--metrics-bind-address=127.0.0.1:10249")
}

func (c *Cluster) reference(name string) string { return filepath.Join(c.Bin, name) }
func (c *Cluster) program(name string) string   { return filepath.Join(c.Programs, name) }

func (c *Cluster) daemon(name string, argv ...string) machine.Daemon {
	return machine.Daemon{Name: name, Argv: argv}
}

func (c *Cluster) etcd() machine.Daemon {
	// The data is a test cluster's: it need not survive a power cut of the host, so etcd may skip fsync.
	return c.daemon(
		"etcd",
		c.reference("etcd"),
		"--data-dir="+c.path("machines", controlPlaneName, "etcd"),
		"--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--log-level=warn",
	)
}

func (c *Cluster) apiServer() machine.Daemon {
	d := c.pki()
	return c.daemon("kube-apiserver", c.reference("kube-apiserver"),
		"--advertise-address="+gateway.String(), fmt.Sprintf("--secure-port=%d",
			apiPort), "--etcd-servers=http://127.0.0.1:2379",
		"--client-ca-file="+d.Path("ca.crt"), "--tls-cert-file="+d.Path("apiserver.crt"), "--tls-private-key-file="+d.Path("apiserver.key"),
		"--kubelet-client-certificate="+d.Path("apiserver-kubelet-client.crt"), "--kubelet-client-key="+d.Path("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file="+d.Path("sa.pub"),
		"--service-account-signing-key-file="+d.Path("sa.key"), "--service-cluster-ip-range="+serviceCIDR,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth=true",
		"--requestheader-client-ca-file="+d.Path("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--proxy-client-cert-file="+d.Path("front-proxy-client.crt"),
		"--proxy-client-key-file="+d.Path("front-proxy-client.key"), "--allow-privileged=true")
}

func (c *Cluster) controllerManager() machine.Daemon {
	d := c.pki()
	return c.daemon(
		"kube-controller-manager",
		c.withKubeconfig("kube-controller-manager", "controller-manager",
			"--allocate-node-cidrs=true", "--cluster-cidr="+podCIDR, "--service-cluster-ip-range="+serviceCIDR,
			"--cluster-signing-cert-file="+d.Path("ca.crt"), "--cluster-signing-key-file="+d.Path("ca.key"), "--root-ca-file="+d.Path("ca.crt"),
			"--service-account-private-key-file="+d.Path("sa.key"), "--use-service-account-credentials=true",
			"--controllers=*,bootstrap-signer-controller,token-cleaner-controller")...,
	)
}

func (c *Cluster) scheduler() machine.Daemon {
	return c.daemon("kube-scheduler", c.withKubeconfig("kube-scheduler", "scheduler")...)
}

// withKubeconfig is the command line that controller manager and scheduler share.
func (c *Cluster) withKubeconfig(program, identity string, args ...string) []string {
	d := c.pki()
	file := d.Path(identity + ".kubeconfig")
	return append([]string{c.reference(program), "--kubeconfig=" + file, "--authentication-kubeconfig=" + file,
		"--authorization-kubeconfig=" + file, "--client-ca-file=" + d.Path("ca.crt"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--requestheader-client-ca-file=" + d.Path("front-proxy-ca.crt")}, args...)
}

func (c *Cluster) corefile() string {
	return fmt.Sprintf(`.:53 {
    bind %s
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
    loop
}
`, gateway, c.pki().Path("coredns.kubeconfig"))
}

func (c *Cluster) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	return kubernetes.NewForConfig(config)
}

func (c *Cluster) awaitAPI(ctx context.Context, client kubernetes.Interface) error {
	err := poll(ctx, 50*time.Millisecond, 2*time.Minute, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, c.died(c.controlPlane(), "etcd", "kube-apiserver")
	})
	if err != nil {
		return fmt.Errorf("wait for the API server: %w", err)
	}
	c.say("API server is ready")
	return nil
}

// died tells which of the daemons has ended, with the last line that it said.
func (c *Cluster) died(m *machine.Machine, names ...string) error {
	states, err := m.List()
	if err != nil {
		return err
	}

	for _, s := range states {
		for _, n := range names {
			if s.Name == n && s.Pid == 0 {
				return fmt.Errorf("%s on %s ended with %s; its log is %s",
					n, m.Name, s.Exit, filepath.Join(m.Dir, "log", n+".log"))
			}
		}
	}

	return nil
}

// poll calls f until it is done, returns an error, or the time is over.
func poll(ctx context.Context, every, limit time.Duration, f func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()

	tick := time.NewTicker(every)
	defer tick.Stop()

	for {
		done, err := f(ctx)
		if done || err != nil {
			return err
		}

		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
