package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const header = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

const kubeadm = header + `
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true},
	x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionHard: {imagefs.available: 0%, nodefs.available: 0%}
evictionPressureTransitionPeriod: 0s
failSwapOn: false
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}},
	verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`

// configured is the configuration of a file (none if it is empty) and flags.
func configured(t *testing.T, file string, args ...string) (settings, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}

		args = append(args, "--config="+path)
	}

	set := flag.NewFlagSet("x", flag.ContinueOnError)
	f := Register(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}

	c := defaults()
	if err := c.load(f); err != nil {
		return c, err
	}
	if err := f.apply(&c); err != nil {
		return c, err
	}

	return c, c.complete()
}

func TestAFileOfKubeadmAndItsFlagsAreTaken(t *testing.T) {
	c, err := configured(t, kubeadm, "--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--node-ip=192.0.2.7,fd00::7", "--node-labels=a=b,c=",
		"--pod-infra-container-image=pause", "--register-with-taints=k=v:NoSchedule",
		"--container-runtime-endpoint=unix:///run/x.sock")
	if err != nil {
		t.Fatal(err)
	}

	// Zero values mean the default: nothing is said about them.
	want := "flag --pod-infra-container-image has no effect here: the runtime knows its sandbox image"
	if diff := cmp.Diff([]string{want}, c.Notices); diff != "" {
		t.Error(diff)
	}

	k := c.Kubelet
	if k.CgroupDriver != "systemd" || k.NodeStatusReportFrequency.Duration != 5*time.Minute ||
		k.StaticPodPath != "/etc/kubernetes/manifests" || c.RuntimeEndpoint != "unix:///run/x.sock" ||
		len(c.NodeIPs) != 2 ||
		c.Labels["a"] != "b" || k.RegisterWithTaints[0].Value != "v" {
		t.Errorf("%+v", c)
	}
}

func TestFlagLinesOfDistributionsAreTaken(t *testing.T) {
	cases := map[string]string{
		"kind": `--bootstrap-kubeconfig=/b --kubeconfig=/k --node-ip=192.0.2.7 --node-labels=
			--provider-id=kind://docker/kind/n --runtime-cgroups=/system.slice/containerd.service
			--fail-swap-on=false`,
		"EKS": `--cloud-provider=external --hostname-override=ip-192-0-2-7 --node-ip=192.0.2.7 --v=2
			--image-credential-provider-config=/etc/eks/ecr.json --image-credential-provider-bin-dir=/etc/eks
			--node-labels=eks.amazonaws.com/nodegroup=ng`,
		"k3s": `--allowed-unsafe-sysctls=net.ipv4.ip_forward,net.ipv6.conf.all.forwarding
			--anonymous-auth=false --address=0.0.0.0 --authentication-token-webhook
			--authorization-mode=Webhook --cgroup-driver=cgroupfs --client-ca-file=/ca.crt
			--eviction-hard=imagefs.available<5%,nodefs.available<5%
			--eviction-minimum-reclaim=imagefs.available=10% --fail-swap-on=false --read-only-port=0
			--feature-gates=ContainerCheckpoint=false --healthz-bind-address=127.0.0.1 --resolv-conf=/run/r
			--serialize-image-pulls=false --pod-manifest-path=/m --kubelet-cgroups=/k3s`,
		"hardened": `--protect-kernel-defaults --event-qps=5 --event-burst=10 --tls-min-version=VersionTLS13
			--streaming-connection-idle-timeout=5m --make-iptables-util-chains=true --seccomp-default=true
			--rotate-server-certificates=true --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
			--pod-max-pids=1024`,
	}

	for name, line := range cases {
		if _, err := configured(t, "", strings.Fields(line)...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFlagsAreLaidOverTheFile(t *testing.T) {
	c, err := configured(t, kubeadm+"maxPods: 20\nfeatureGates: {ContainerCheckpoint: false}\n",
		"--max-pods=30",
		"--eviction-hard=memory.available<5%", "--eviction-hard=pid.available<1%",
		"--feature-gates=ComponentFlagz=false",
		"--streaming-connection-idle-timeout=0", "--serialize-image-pulls", "--cluster-dns=192.0.2.1",
		"--cluster-dns=192.0.2.2")
	if err != nil {
		t.Fatal(err)
	}

	k := c.Kubelet
	if k.MaxPods != 30 || k.StreamingIdleTimeout.Duration != 0 || !*k.SerializeImagePulls {
		t.Errorf("maxPods %d, idle %v, serial %v", k.MaxPods, k.StreamingIdleTimeout, *k.SerializeImagePulls)
	}

	if diff := cmp.Diff(map[string]string{"memory.available": "5%", "pid.available": "1%"},
		k.EvictionHard); diff != "" {
		t.Error(diff)
	}

	if k.Enabled("ContainerCheckpoint") || k.Enabled("ComponentFlagz") || !k.Enabled("ComponentStatusz") {
		t.Errorf("gates %v", k.FeatureGates)
	}
	if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.2"}, k.ClusterDNS); diff != "" {
		t.Error(diff)
	}
}

func TestLabelsAreReadAsKubeletReadsThem(t *testing.T) {
	c, err := configured(t, "", "--node-labels=a=b, c = d ,e", "--node-labels=f=")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "b", "c": "d", "e": "", "f": ""}, c.Labels); diff != "" {
		t.Error(diff)
	}
}

func TestFlagsMayHaveUnderscores(t *testing.T) {
	got := Normalize([]string{"--node_labels=a_b=c_d", "--fail_swap_on", "-v", "a_b", "--", "--x_y"})
	want := []string{"--node-labels=a_b=c_d", "--fail-swap-on", "-v", "a_b", "--", "--x_y"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFlagzShowsNoCredentials(t *testing.T) {
	c, err := configured(t, "", "--manifest-url-header=Authorization:secret", "--v=2")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"manifest-url-header": "CLASSIFIED", "v": "2"},
		c.Flags); diff != "" {
		t.Error(diff)
	}
}

func TestZeroIsNotAlwaysTheDefault(t *testing.T) {
	c := defaults()
	if err := c.replace([]byte(kubeadm + "resolvConf: \"\"\nmaxPods: 0\n")); err != nil {
		t.Fatal(err)
	}

	if *c.Kubelet.HealthzPort != 10248 || *c.Kubelet.ResolverConfig != "" || c.Kubelet.MaxPods != 110 {
		t.Errorf("healthzPort %d, resolvConf %q, maxPods %d",
			*c.Kubelet.HealthzPort, *c.Kubelet.ResolverConfig, c.Kubelet.MaxPods)
	}

	off := strings.NewReplacer("healthzPort: 10248",
		"healthzPort: 0", "rotateCertificates: true", "rotateCertificates: false").Replace(kubeadm)
	if err := c.replace([]byte(off)); err != nil || *c.Kubelet.HealthzPort != 0 ||
		*c.Kubelet.RotateCertificates {
		t.Errorf("what is switched off stays on: healthzPort %d, rotateCertificates %v, %v",
			*c.Kubelet.HealthzPort, *c.Kubelet.RotateCertificates, err)
	}
}

func TestReportsFollowThePaceOfLooks(t *testing.T) {
	c := defaults()
	if err := c.replace([]byte(header + "nodeStatusUpdateFrequency: 20s\n")); err != nil {
		t.Fatal(err)
	}
	if got := c.Kubelet.NodeStatusReportFrequency.Duration; got != 20*time.Second {
		t.Errorf("reported every %v, want 20s", got)
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(kubeadm))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := defaults()
		if err := c.replace(data); err == nil {
			_ = c.complete()
		}
	})
}
