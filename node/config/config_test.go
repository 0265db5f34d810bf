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

const kubeadm = `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionHard: {imagefs.available: 0%, nodefs.available: 0%}
failSwapOn: false
healthzBindAddress: 127.0.0.1
healthzPort: 10248
nodeStatusReportFrequency: 0s
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
`

func TestAFileOfKubeadmAndItsFlagsAreTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(kubeadm), 0o600); err != nil {
		t.Fatal(err)
	}
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	f := Register(set)
	if err := set.Parse([]string{"--config=" + path, "--kubeconfig=/etc/kubernetes/kubelet.conf", "--node-ip=192.0.2.7,fd00::7", "--node-labels=a=b,c=",
		"--pod-infra-container-image=pause", "--register-with-taints=k=v:NoSchedule", "--container-runtime-endpoint=unix:///run/x.sock"}); err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	unserved, err := c.Load(f.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(&c); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cpuManagerReconcilePeriod", "failSwapOn"}, unserved); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"pod-infra-container-image"}, f.Ignored); diff != "" {
		t.Error(diff)
	}
	k := c.Kubelet
	if k.CgroupDriver != "systemd" || k.NodeStatusReportFrequency.Duration != 5*time.Minute || k.StaticPodPath != "/etc/kubernetes/manifests" ||
		c.RuntimeEndpoint != "unix:///run/x.sock" || len(c.NodeIPs) != 2 || c.Labels["a"] != "b" || k.RegisterWithTaints[0].Value != "v" {
		t.Errorf("%+v", c)
	}
}

func TestWhatCannotBeIsRefusedByName(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Other":                        "KubeletConfiguration",
		kubeadm + "maxPods: ten":             "maxPods",
		kubeadm + "systemReserved: {cpu: x}": "systemReserved",
	} {
		c := Defaults()
		_, err := c.apply([]byte(text))
		if err == nil {
			err = c.Complete()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text[:10], err)
		}
	}
	c := Defaults()
	c.Kubelet.ClusterDNS = []string{"dns"}
	if err := c.Complete(); err == nil || !strings.Contains(err.Error(), "clusterDNS") {
		t.Error(err)
	}
}

func TestZeroIsNotAlwaysTheDefault(t *testing.T) {
	c := Defaults()
	if _, err := c.apply([]byte(kubeadm + "resolvConf: \"\"\nmaxPods: 0\n")); err != nil {
		t.Fatal(err)
	}
	if *c.Kubelet.HealthzPort != 10248 || *c.Kubelet.ResolverConfig != "" || c.Kubelet.MaxPods != 110 {
		t.Errorf("healthzPort %d, resolvConf %q, maxPods %d", *c.Kubelet.HealthzPort, *c.Kubelet.ResolverConfig, c.Kubelet.MaxPods)
	}
	off := strings.NewReplacer("healthzPort: 10248", "healthzPort: 0", "rotateCertificates: true", "rotateCertificates: false").Replace(kubeadm)
	if _, err := c.apply([]byte(off)); err != nil || *c.Kubelet.HealthzPort != 0 || c.Kubelet.RotateCertificates {
		t.Errorf("what is switched off stays on: healthzPort %d, rotateCertificates %v, %v", *c.Kubelet.HealthzPort, c.Kubelet.RotateCertificates, err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(kubeadm))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Defaults()
		if _, err := c.apply(data); err == nil {
			_ = c.Complete()
		}
	})
}
