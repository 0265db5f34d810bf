package seat

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/machine"
)

// with changes the seats of a node of ours.
func with(change func(*Seats)) Seats {
	s := Ours
	change(&s)
	return s
}

func TestSeatsTakeOnlyProgramsThatBelongThere(t *testing.T) {
	for _, s := range []Seats{Ours, Reference} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}

	for want, s := range map[string]Seats{
		`node agent "containerd"`:      with(func(s *Seats) { s.Agent = "containerd" }),
		`CRI server "docker"`:          with(func(s *Seats) { s.CRI = "docker" }),
		`CNI plugin ""`:                with(func(s *Seats) { s.CNI = "" }),
		`OCI runtime "kata"`:           with(func(s *Seats) { s.OCI = "kata" }),
		`provisioner of volumes "nfs"`: with(func(s *Seats) { s.CSI = "nfs" }),
		`init "openrc"`:                with(func(s *Seats) { s.Init = "openrc" }),
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %s", err, want)
		}
	}
}

func TestAProgramIsPutIntoASeat(t *testing.T) {
	for _, c := range []struct{ seat, program, want string }{
		{"agent", "kubelet", "kubelet trivet trivet trivet crun"},
		{"cri", "containerd", "trivet containerd trivet trivet runc"},
		{"cni", "upstream", "trivet trivet upstream trivet crun"},
		{"csi", "local-path", "trivet trivet trivet local-path crun"},
	} {
		s, err := Ours.With(c.seat, c.program)
		got := strings.Join([]string{s.Agent, s.CRI, s.CNI, s.CSI, s.OCI}, " ")
		if err != nil || got != c.want {
			t.Errorf("%s %s: %s, %v; want %s", c.seat, c.program, got, err, c.want)
		}
	}

	for _, c := range [][2]string{{"oci", "runc"}, {"agent", "containerd"}} {
		if s, err := Ours.With(c[0], c[1]); err == nil {
			t.Errorf("%v: %+v", c, s)
		}
	}
}

func TestCrunOfOCI10DoesNotFitContainerd(t *testing.T) {
	const old, recent = "crun version 1.8.1\nspec: 1.0.0", "crun version 1.20\nspec: 1.2.0"
	containerd := with(func(s *Seats) { s.CRI = "containerd" })
	for _, c := range []struct {
		seats   Seats
		version string
		fits    bool
	}{
		{containerd, old, false},
		{containerd, recent, true},
		{Ours, old, true},
		{Reference, old, true},
	} {
		if err := c.seats.fits(c.version); (err == nil) != c.fits {
			t.Errorf("%+v with %q: %v", c.seats, c.version, err)
		}
	}
}

func TestCommandLinesFollowTheSeats(t *testing.T) {
	p := Programs{Ours: "/ours", Reference: "/ref"}
	dual := Programs{Ours: "/ours", Reference: "/ref", Stack: address.Stack{Dual: true}}
	zones := Programs{Ours: "/ours", Reference: "/ref", Zones: 3}
	onSystemd := with(func(s *Seats) { s.Init = machine.Systemd })
	for _, c := range []struct {
		daemon machine.Daemon
		name   string
		argv   []string // among others
	}{
		{p.CRIServer(Ours), "trivet-cri", []string{"/ours/trivet-cri", "--cgroup-driver=cgroupfs"}},
		{p.CRIServer(onSystemd), "trivet-cri", []string{"--oci-runtime=crun", "--cgroup-driver=systemd"}},
		{p.CRIServer(Reference), "containerd", []string{"/ref/containerd"}},
		{p.Agent(Ours, "node2", 1), "trivet-node", []string{
			"/ours/trivet-node",
			"--hostname-override=node2",
			"--node-ip=10.99.1.2",
		}},
		{p.Agent(Reference, "ref1", 0), "kubelet", []string{"/ref/kubelet", "--node-ip=10.99.1.1"}},
		{p.Netd("node1", Ours.Network()), "trivet-netd", []string{
			"/ours/trivet-netd", "--cluster-cidr=10.244.0.0/16",
		}},
		{p.Netd("node1", Reference.Network()), "trivet-netd", []string{"--network=pods", "--bridge=cni0"}},
		{p.CSI(Ours, "node1", 0), "trivet-csi", []string{
			"/ours/trivet-csi", "--node-name=node1", "--pool-size=5368709120", "--inline-most=1073741824",
			"--volumes-most=128",
		}},
		{p.KubeProxy("node1", "/k"), "kube-proxy", []string{"/ref/kube-proxy", "--kubeconfig=/k"}},
		{zones.Agent(Ours, "node5", 4), "trivet-node", []string{
			"--node-labels=topology.kubernetes.io/zone=zone2",
		}},
		{dual.Agent(Ours, "node1", 0), "trivet-node", []string{"--node-ip=10.99.1.1,fd00:10:99::1:1"}},
		{dual.Netd("node1", Ours.Network()), "trivet-netd", []string{
			"--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
		}},
		{dual.KubeProxy("node1", "/k"), "kube-proxy", []string{
			"--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
		}},
	} {
		if c.daemon.Name != c.name {
			t.Errorf("daemon %s, want %s", c.daemon.Name, c.name)
		}

		for _, arg := range c.argv {
			if !slices.Contains(c.daemon.Argv, arg) {
				t.Errorf("%s: %v is without %s", c.name, c.daemon.Argv, arg)
			}
		}
	}
}

func TestContainerdFindsItsShimBesideIt(t *testing.T) {
	env := Programs{Reference: "/ref"}.CRIServer(Reference).Env
	if len(env) != 1 || !strings.HasPrefix(env[0], "PATH=/ref:") {
		t.Errorf("environment %v", env)
	}
}

func TestAgentAndRuntimeAgreeOnSocketAndCgroupDriver(t *testing.T) {
	for _, s := range []Seats{Ours, Reference, with(func(s *Seats) { s.Init = machine.Systemd })} {
		var config struct{ CgroupDriver, ContainerRuntimeEndpoint string }
		for _, text := range AgentFiles(s) {
			if err := json.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
		}

		if config.CgroupDriver != s.CgroupDriver() || config.ContainerRuntimeEndpoint != s.CRIEndpoint() {
			t.Errorf("%+v: the agent is told %+v", s, config)
		}
	}

	files := RuntimeFiles(with(func(s *Seats) { s.Init = machine.Systemd }))
	if !strings.Contains(files[containerdConfigPath], "SystemdCgroup = true") {
		t.Error("containerd does not use systemd's cgroups on a node with systemd")
	}
}

func TestEveryRuntimeHasTheHandlerOfThePublishedSuite(t *testing.T) {
	ours, theirs := RuntimeFiles(Ours)[criConfigPath], RuntimeFiles(Reference)[containerdConfigPath]
	if want := "[runtimes.test-handler]\nprogram = \"crun\"\n"; ours != want {
		t.Errorf("trivet-cri: %q, want %q", ours, want)
	}
	if !strings.Contains(theirs, ".runtimes.test-handler]") || !strings.Contains(theirs, ".runtimes.runc]") {
		t.Errorf("containerd: %s", theirs)
	}
}

func TestEveryRegistryIsMirroredByTheOneOnTheLAN(t *testing.T) {
	files := RuntimeFiles(Ours)
	for _, registry := range []string{"docker.io", "registry.k8s.io", "k8s.gcr.io", "gcr.io"} {
		text := files["/etc/containerd/certs.d/"+registry+"/hosts.toml"]
		if !strings.Contains(text, `[host."http://10.99.0.1:5000"]`) {
			t.Errorf("%s: %q", registry, text)
		}
	}
}

func TestPluginsFollowTheSeat(t *testing.T) {
	p := Programs{Ours: "/ours"}
	upstream := []string{"/ref/cni/bridge", "/ref/cni/portmap"}
	if got := p.Plugins(Ours, upstream); len(got) != 2 || got["loopback"] != "/ours/trivet-cni" {
		t.Errorf("ours: %v", got)
	}
	if got := p.Plugins(Reference, upstream); len(got) != 2 || got["bridge"] != "/ref/cni/bridge" {
		t.Errorf("upstream: %v", got)
	}
}

func TestUpstreamNetworkHasARangeForEachPodCIDR(t *testing.T) {
	path, text := UpstreamNetwork(Reference.Network(), []string{"10.244.0.0/24", "fd00::/64"})
	var conf struct {
		Name    string
		Plugins []struct {
			Type string
			IPAM struct {
				Ranges [][]map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &conf); err != nil {
		t.Fatal(err)
	}

	ranges := conf.Plugins[0].IPAM.Ranges
	if path != UpstreamConflist || conf.Name != "pods" || len(ranges) != 2 ||
		ranges[1][0]["subnet"] != "fd00::/64" {
		t.Errorf("%s: %s", path, text)
	}
}

func TestTracedProgramsKnowWhereSpansGo(t *testing.T) {
	theirs, ours := Reference, Ours
	theirs.Traces, ours.Traces = "192.0.2.1:4317", "192.0.2.1:4317"
	p := Programs{Ours: "/ours", Reference: "/reference"}
	for _, argv := range [][]string{p.CRIServer(ours).Argv, p.CSI(ours, "node1", 0).Argv} {
		if !slices.Contains(argv, "--tracing-endpoint=192.0.2.1:4317") {
			t.Errorf("command line %q", argv)
		}
	}

	env := p.CRIServer(theirs).Env
	if !slices.Contains(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://192.0.2.1:4317") {
		t.Errorf("environment of containerd %q", env)
	}

	for _, s := range []Seats{theirs, ours} {
		config := AgentFiles(s)[kubeletConfigPath]
		if !strings.Contains(config, `"endpoint": "192.0.2.1:4317"`) {
			t.Errorf("configuration of %s: %s", s.Agent, config)
		}
	}

	if config := AgentFiles(Ours)[kubeletConfigPath]; strings.Contains(config, "tracing") {
		t.Errorf("configuration without traces: %s", config)
	}
}
