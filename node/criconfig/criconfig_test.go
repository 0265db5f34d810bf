package criconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/swap"
)

var node = Node{
	ClusterDNS:    []string{"10.96.0.10"},
	ClusterDomain: "cluster.local",
	HostDNS: DNS{
		Servers:  []string{"192.0.2.53"},
		Searches: []string{"example.com"},
		Options:  []string{"timeout:1"},
	},
	LogRoot:        "/var/log/pods",
	MemoryCapacity: 8 << 30,
	CPUQuota:       true,
}

func podOf(mod func(*v1.PodSpec)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop", UID: "u"},
		Spec:       v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, Containers: []v1.Container{{Name: "c"}}},
	}
	if mod != nil {
		mod(&p.Spec)
	}
	return p
}

func TestDNSIsThatOfThePolicyAndThenThePodsOwn(t *testing.T) {
	ofCluster := DNS{
		Servers:  []string{"10.96.0.10"},
		Searches: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"},
		Options:  []string{"ndots:5"},
	}

	replaced := ofCluster
	replaced.Options = []string{"ndots:1"}

	for name, c := range map[string]struct {
		mod  func(*v1.PodSpec)
		want DNS
	}{
		"ClusterFirst": {
			want: ofCluster,
		},
		"ClusterFirst on the host's network": {
			mod:  func(s *v1.PodSpec) { s.HostNetwork = true },
			want: node.HostDNS,
		},
		"Default": {
			mod:  func(s *v1.PodSpec) { s.DNSPolicy = v1.DNSDefault },
			want: node.HostDNS,
		},

		"None with its own": {
			mod: func(s *v1.PodSpec) {
				s.DNSPolicy = v1.DNSNone
				s.DNSConfig = &v1.PodDNSConfig{
					Nameservers: []string{"192.0.2.1"},
					Searches:    []string{"a.b"},
					Options:     []v1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}},
				}
			},
			want: DNS{
				Servers:  []string{"192.0.2.1"},
				Searches: []string{"a.b"},
				Options:  []string{"ndots:2", "edns0"},
			},
		},
		"options replace": {
			mod: func(s *v1.PodSpec) {
				ndots := v1.PodDNSConfigOption{Name: "ndots", Value: new("1")}
				s.DNSConfig = &v1.PodDNSConfig{Options: []v1.PodDNSConfigOption{ndots}}
			},
			want: replaced,
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := podDNS(node, podOf(c.mod))
			got := DNS{Servers: out.Servers, Searches: out.Searches, Options: out.Options}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostnamesFitTheKernelAndDNS(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	qualified := func(subdomain string) func(*v1.PodSpec) {
		return func(s *v1.PodSpec) {
			s.Subdomain = subdomain
			s.SetHostnameAsFQDN = new(true)
		}
	}

	for name, c := range map[string]struct {
		mod  func(*v1.PodSpec)
		want string
		bad  bool
	}{
		"the pod's name":   {want: "web-0"},
		"its own":          {mod: func(s *v1.PodSpec) { s.Hostname = "h" }, want: "h"},
		"cut without dash": {mod: func(s *v1.PodSpec) { s.Hostname = long }, want: strings.Repeat("a", 62)},
		"fully qualified":  {mod: qualified("sub"), want: "web-0.sub.shop.svc.cluster.local"},
		"too long":         {mod: qualified(strings.Repeat("s", 50)), bad: true},
		"the node's":       {mod: func(s *v1.PodSpec) { s.HostNetwork = true }},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := hostnameOf(podOf(c.mod), "cluster.local")
			if got != c.want || (err != nil) != c.bad {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestHostsFileHasThePodsNamesAndAliases(t *testing.T) {
	p := podOf(func(s *v1.PodSpec) {
		s.Subdomain = "sub"
		s.HostAliases = []v1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"x", "y"}}}
	})

	got := string(Hosts(p, []string{"10.0.0.2", "fd00::2"}, "cluster.local", nil))
	for _, want := range []string{
		"# Kubernetes-managed hosts file.\n",
		"10.0.0.2\tweb-0.sub.shop.svc.cluster.local\tweb-0\n",
		"fd00::2\tweb-0.sub",
		"\n# Entries added by HostAliases.\n192.0.2.9\tx\ty\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestResourcesAndOOMScores(t *testing.T) {
	c := v1.Container{Name: "c", Resources: v1.ResourceRequirements{
		Requests: v1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("1Gi")},
		Limits:   v1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("2Gi")}}}
	p := podOf(func(s *v1.PodSpec) { s.Containers = []v1.Container{c} })
	r := Resources(node, p, &c)
	if r.CpuShares != 256 || r.CpuQuota != 100000 || r.MemoryLimitInBytes != 2<<30 || r.OomScoreAdj != 875 {
		t.Errorf("%+v", r)
	}
	if got := oomScore(node, podOf(nil), &v1.Container{}); got != 1000 {
		t.Errorf("best effort: %d", got)
	}

	c.Resources.Requests = c.Resources.Limits
	p.Spec.Containers[0] = c
	if got := oomScore(node, p, &c); got != -997 {
		t.Errorf("guaranteed: %d", got)
	}
}

func TestSwapAndOOMKillsAreAsTheNodeSays(t *testing.T) {
	c := v1.Container{Name: "c", Resources: v1.ResourceRequirements{
		Requests: v1.ResourceList{"memory": resource.MustParse("1Gi")},
		Limits:   v1.ResourceList{"memory": resource.MustParse("2Gi")},
	}}
	p := podOf(func(s *v1.PodSpec) { s.Containers = []v1.Container{c} })
	limited := swap.Policy{
		Bounded:  true,
		Limited:  true,
		Memory:   8 << 30,
		Capacity: 4 << 30,
	}

	for name, c := range map[string]struct {
		node    Node
		unified map[string]string
		swap    int64
	}{
		"cgroup v2":          {Node{CgroupV2: true}, files("memory.oom.group", "1"), 0},
		"processes go alone": {Node{CgroupV2: true, SingleOOMKill: true}, files(), 0},
		"NoSwap on cgroup v2": {Node{CgroupV2: true, Swap: swap.Policy{Bounded: true}},
			files("memory.oom.group", "1", "memory.swap.max", "0"), 0},
		"LimitedSwap on cgroup v2": {Node{CgroupV2: true, Swap: limited},
			files("memory.oom.group", "1", "memory.swap.max", "536870912"), 0},
		"swap on cgroup v1":    {Node{Swap: limited}, nil, 2 << 30},
		"no swap on cgroup v1": {Node{}, nil, 0},
	} {
		r := Resources(c.node, p, &p.Spec.Containers[0])
		if diff := cmp.Diff(c.unified, r.Unified); diff != "" || r.MemorySwapLimitInBytes != c.swap {
			t.Errorf("%s: swap %d, want %d; %s", name, r.MemorySwapLimitInBytes, c.swap, diff)
		}
	}
}

func TestLimitsOfThePodAreThoseOfContainersThatHaveNone(t *testing.T) {
	p := podOf(func(s *v1.PodSpec) {
		s.Resources = &v1.ResourceRequirements{Limits: v1.ResourceList{
			"cpu":           resource.MustParse("500m"),
			"memory":        resource.MustParse("1Gi"),
			"hugepages-2Mi": resource.MustParse("8Mi"),
		}}
		s.Containers = []v1.Container{{Name: "none"}, {Name: "own", Resources: v1.ResourceRequirements{
			Limits: v1.ResourceList{
				"cpu":           resource.MustParse("1"),
				"hugepages-2Mi": resource.MustParse("2Mi"),
			},
		}}}
	})

	on := Node{CPUQuota: true, PageSizes: []string{"2MB", "1GB"}}
	for i, want := range []*cri.LinuxContainerResources{
		{CpuShares: 512, CpuQuota: 50_000, HugepageLimits: pages(0, 8<<20)},
		{CpuShares: 1024, CpuQuota: 100_000, HugepageLimits: pages(0, 2<<20)},
	} {
		want.CpuPeriod = 100_000
		want.MemoryLimitInBytes = 1 << 30
		want.OomScoreAdj = oomGuaranteed
		got := Resources(on, p, &p.Spec.Containers[i])
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", p.Spec.Containers[i].Name, diff)
		}
	}
}

func pages(gigantic, huge uint64) []*cri.HugepageLimit {
	return []*cri.HugepageLimit{{PageSize: "1GB", Limit: gigantic}, {PageSize: "2MB", Limit: huge}}
}

func TestOOMScoresCountWhatThePodRequestsAsAWhole(t *testing.T) {
	on := Node{MemoryCapacity: 100 << 20}
	asking := func(memory string) v1.Container {
		return v1.Container{Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{"memory": resource.MustParse(memory)},
		}}
	}

	sidecar := asking("1Mi")
	sidecar.RestartPolicy = new(v1.ContainerRestartPolicyAlways)
	p := podOf(func(s *v1.PodSpec) {
		s.InitContainers = []v1.Container{sidecar}
		s.Containers = []v1.Container{asking("10Mi"), asking("20Mi")}
	})
	scores := func() []int64 {
		return []int64{
			oomScore(on, p, &p.Spec.InitContainers[0]),
			oomScore(on, p, &p.Spec.Containers[0]),
			oomScore(on, p, &p.Spec.Containers[1]),
		}
	}

	// The sidecar goes no sooner than the application.
	if diff := cmp.Diff([]int64{900, 900, 800}, scores()); diff != "" {
		t.Error(diff)
	}

	// Each has a third of the 30 MiB that no container requests.
	p.Spec.Resources = &v1.ResourceRequirements{
		Requests: v1.ResourceList{"memory": resource.MustParse("61Mi")},
	}
	if diff := cmp.Diff([]int64{800, 800, 700}, scores()); diff != "" {
		t.Errorf("with requests of the pod: %s", diff)
	}
}

func TestNonRootIsEnforced(t *testing.T) {
	yes := new(true)
	for name, c := range map[string]struct {
		user  *int64
		image User
		bad   bool
	}{
		"given user": {new(int64(7)), User{}, false},
		"given root": {new(int64(0)), User{}, true},
		"image mute": {nil, User{}, true},
		"image root": {nil, User{UID: new(int64(0))}, true},
		"image name": {nil, User{Name: "www"}, true},
		"image user": {nil, User{UID: new(int64(7))}, false},
	} {
		if err := checkNonRoot(yes, c.user, c.image); (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
	}

	if err := checkNonRoot(nil, new(int64(0)), User{}); err != nil {
		t.Error(err)
	}
}

func TestContainerSecurityOverridesThePods(t *testing.T) {
	p := podOf(func(s *v1.PodSpec) {
		s.ShareProcessNamespace = new(true)
		s.SecurityContext = &v1.PodSecurityContext{
			RunAsUser:          new(int64(1)),
			RunAsGroup:         new(int64(2)),
			FSGroup:            new(int64(3)),
			SupplementalGroups: []int64{4},
			SeccompProfile:     &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault},
		}

		s.Containers[0].SecurityContext = &v1.SecurityContext{
			RunAsUser:                new(int64(9)),
			AllowPrivilegeEscalation: new(false),
			SeccompProfile: &v1.SeccompProfile{
				Type:             v1.SeccompProfileTypeLocalhost,
				LocalhostProfile: new("../../evil.json"),
			},
		}
	})

	n := node
	n.SeccompRoot = "/seccomp"
	got, err := CreateContainer(n, p, Container{Spec: &p.Spec.Containers[0], Groups: []int64{5}})
	if err != nil {
		t.Fatal(err)
	}

	s := got.Linux.SecurityContext
	if s.RunAsUser.Value != 9 || s.RunAsGroup.Value != 2 || !s.NoNewPrivs ||
		s.NamespaceOptions.Pid != cri.NamespaceMode_POD || len(s.MaskedPaths) == 0 {
		t.Errorf("%+v", s)
	}

	if diff := cmp.Diff([]int64{4, 3, 5}, s.SupplementalGroups); diff != "" {
		t.Error(diff)
	}
	if s.Seccomp.LocalhostRef != "/seccomp/evil.json" {
		t.Errorf("seccomp profile left its directory: %s", s.Seccomp.LocalhostRef)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 10.0.0.1\nsearch a b\noptions ndots:5\n")
	f.Fuzz(func(t *testing.T, data string) { ParseResolvConf(data) })
}
