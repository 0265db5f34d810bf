package container_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// shownAs returns resources as limits does.
func shownAs(r *runtimeapi.LinuxContainerResources) [3]string {
	return [3]string{fmt.Sprint(r.CpuQuota), fmt.Sprint(r.CpuPeriod), fmt.Sprint(r.MemoryLimitInBytes)}
}

// update changes the resources of a container.
func update(t *testing.T, n *nodetest.Node, id string, r *runtimeapi.LinuxContainerResources) error {
	t.Helper()
	_, err := n.Pods.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id,
		Linux:       r,
	})
	return err
}

// resourcesOf are the resources that a container of these tests starts with.
func resourcesOf(r *runtimeapi.LinuxContainerResources) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = r }
}

// changes are made one after the other; want is what limits returns after each.
var changes = []struct {
	name   string
	change *runtimeapi.LinuxContainerResources
	want   [3]string
}{
	{"nothing", &runtimeapi.LinuxContainerResources{}, [3]string{"50000", "100000", "67108864"}},
	{"quota", &runtimeapi.LinuxContainerResources{CpuQuota: 20_000, CpuPeriod: 100_000},
		[3]string{"20000", "100000", "67108864"}},
	{"memory", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20},
		[3]string{"20000", "100000", "134217728"}},
	{"less memory", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20},
		[3]string{"20000", "100000", "33554432"}},
	{"no quota", &runtimeapi.LinuxContainerResources{CpuQuota: -1, CpuPeriod: 100_000},
		[3]string{"-1", "100000", "33554432"}},
	{"no memory limit", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -1},
		[3]string{"-1", "100000", "-1"}},
	{"OOM score", &runtimeapi.LinuxContainerResources{OomScoreAdj: 1000},
		[3]string{"-1", "100000", "-1"}},
	{"all", &runtimeapi.LinuxContainerResources{
		CpuShares:          1024,
		CpuQuota:           40_000,
		CpuPeriod:          20_000,
		MemoryLimitInBytes: 16 << 20,
	}, [3]string{"40000", "20000", "16777216"}},
}

func TestUpdatesAreInForceAndShownAsSuch(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "update")
		id := n.Run(pod, "app", []string{"sleep", "1000"}, resourcesOf(&runtimeapi.LinuxContainerResources{
			CpuShares:          512,
			CpuQuota:           50_000,
			CpuPeriod:          100_000,
			MemoryLimitInBytes: 64 << 20,
			OomScoreAdj:        500,
		}))
		k := kernelOf(t, n, id)

		for _, c := range changes {
			if err := update(t, n, id, c.change); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if got := k.limits(); got != c.want {
				t.Errorf("%s: the kernel has %q, want %q", c.name, got, c.want)
			}

			shown := n.Status(id).Resources.Linux
			if got := shownAs(shown); got != c.want || shown.OomScoreAdj != 500 {
				t.Errorf("%s: shown as %v", c.name, shown)
			}
		}

		// Systemd writes what it knows of a scope.
		if driver.Systemd {
			systemctl(t, "daemon-reload")
			if got, want := k.limits(), shownAs(n.Status(id).Resources.Linux); got != want {
				t.Errorf("after a reload of systemd: the kernel has %q, want %q", got, want)
			}
		}

		n.Kill()
		n.Start()
		if got := n.Status(id).Resources.Linux; got.CpuShares != 1024 || got.MemoryLimitInBytes != 16<<20 {
			t.Errorf("after a restart of the server: %v", got)
		}
	})
}

func TestSharesAreUpdatedOnTheScaleOfTheVersion(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "shares")
		sleep := []string{"sleep", "1000"}
		fresh := n.Run(pod, "fresh", sleep, resourcesOf(&runtimeapi.LinuxContainerResources{CpuShares: 512}))
		id := n.Run(pod, "app", sleep, resourcesOf(&runtimeapi.LinuxContainerResources{CpuShares: 100}))
		if err := update(t, n, id, &runtimeapi.LinuxContainerResources{CpuShares: 512}); err != nil {
			t.Fatal(err)
		}

		// Runtimes convert in two ways; that of the start and that of an update must be one.
		shares := func(id string) string { return kernelOf(t, n, id).file("cpu", "cpu.shares", "cpu.weight") }
		if got, want := shares(id), shares(fresh); got != want {
			t.Errorf("updated %s, fresh %s", got, want)
		}
		if got := n.Status(id).Resources.Linux.CpuShares; got != 512 {
			t.Errorf("shown as %d shares", got)
		}
	})
}

func TestALimitBelowWhatIsUsedIsRefusedAndNothingElseIsChanged(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "used")
		hold := "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo held; read y"
		id := n.Run(pod, "app", []string{"sh", "-c", hold}, func(c *runtimeapi.ContainerConfig) {
			c.Stdin = true
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{
				CpuQuota:           50_000,
				CpuPeriod:          100_000,
				MemoryLimitInBytes: 200 << 20,
			}
		})
		nodetest.Eventually(t, func() bool {
			log, _ := os.ReadFile(n.Dir + "/logs/app.log")
			return strings.Contains(string(log), "held")
		})

		k := kernelOf(t, n, id)
		before := k.limits()
		err := update(t, n, id, &runtimeapi.LinuxContainerResources{
			CpuQuota:           20_000,
			CpuPeriod:          100_000,
			MemoryLimitInBytes: 4 << 20,
		})
		if err == nil {
			t.Error("a limit of 4 MiB is accepted while 30 MB are used")
		}
		t.Log(err)

		if got := k.limits(); got != before {
			t.Errorf("the kernel has %q, want %q", got, before)
		}
		if got := n.Status(id).Resources.Linux; got.CpuQuota != 50_000 || got.MemoryLimitInBytes != 200<<20 {
			t.Errorf("shown as %v", got)
		}
		if s := n.Status(id).State; s != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %s", s)
		}
	})
}

func TestMemoryThatMustNotBeSwappedStaysSoInBothDirections(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "swap")
		id := n.Run(pod, "app", []string{"sleep", "1000"}, resourcesOf(&runtimeapi.LinuxContainerResources{
			MemoryLimitInBytes:     64 << 20,
			MemorySwapLimitInBytes: 64 << 20,
		}))
		k := kernelOf(t, n, id)
		swap := func() string { return k.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max") }

		for _, c := range []struct{ memory, swap, v1, v2 string }{
			{"128", "128", "134217728", "0"},
			{"32", "32", "33554432", "0"},
			{"96", "0", "100663296", "0"},
			{"48", "0", "50331648", "0"},
		} {
			mib := func(text string) int64 {
				n, err := strconv.ParseInt(text, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n << 20
			}
			err := update(t, n, id, &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes:     mib(c.memory),
				MemorySwapLimitInBytes: mib(c.swap),
			})
			if err != nil {
				t.Errorf("%s MiB: %v", c.memory, err)
			}

			want := c.v1
			if k.host.V2 {
				want = c.v2
			}
			if got := k.limits()[2]; got != strconv.FormatInt(mib(c.memory), 10) || swap() != want {
				t.Errorf("%s MiB: memory %s, swap %s", c.memory, got, swap())
			}
		}

		if err := update(t, n, id, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -1}); err != nil {
			t.Errorf("no limit: %v", err)
		}
		if got := k.limits()[2]; got != "-1" {
			t.Errorf("no limit: %s", got)
		}
	})
}

func TestCPUsAndHugePagesAreUpdated(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		host, err := cgroup.Open()
		if err != nil {
			t.Fatal(err)
		}
		change := &runtimeapi.LinuxContainerResources{CpusetCpus: "0", CpusetMems: "0"}
		if host.Controller("hugetlb") {
			change.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 2 << 20}}
		}
		if host.V2 {
			change.Unified = map[string]string{"memory.high": "33554432"}
		}

		pod := podOf(n, "pages")
		id := n.Run(pod, "app", []string{"sleep", "1000"}, nil)
		for range 2 {
			if err := update(t, n, id, change); err != nil {
				t.Fatal(err)
			}
		}

		k := kernelOf(t, n, id)
		if got := k.file("cpuset", "cpuset.cpus", "cpuset.cpus"); got != "0" {
			t.Errorf("CPUs %q", got)
		}
		if host.Controller("hugetlb") {
			if got := k.file("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"); got != "2097152" {
				t.Errorf("huge pages %q", got)
			}
		}
		if host.V2 {
			if got := k.file("memory", "", "memory.high"); got != "33554432" {
				t.Errorf("memory.high %q", got)
			}
		}

		if got := n.Status(id).Resources.Linux.HugepageLimits; len(got) > 1 {
			t.Errorf("huge pages are shown as %v", got)
		}
	})
}

func TestUpdatesComeAtAnyTimeOfALife(t *testing.T) {
	withRuntimes(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "times")
		change := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
		id := n.Create(pod, "app", []string{"sleep", "1000"}, nil)
		if err := update(t, n, id, change); err != nil {
			t.Errorf("before the start: %v", err)
		}

		// Updates and the start at the same time: each is carried out, one after the other.
		var calls sync.WaitGroup
		calls.Go(func() {
			if err := n.StartContainer(id); err != nil {
				t.Errorf("start: %v", err)
			}
		})
		for i := range 4 {
			calls.Go(func() {
				limit := int64(65+i) << 20
				err := update(t, n, id, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: limit})
				if err != nil {
					t.Errorf("update to %d: %v", limit, err)
				}
			})
		}
		calls.Wait()

		k := kernelOf(t, n, id)
		shown := n.Status(id).Resources.Linux.MemoryLimitInBytes
		if got := k.limits()[2]; got != strconv.FormatInt(shown, 10) {
			t.Errorf("the kernel has %s, %d is shown", got, shown)
		}

		if err := n.StopContainer(id, 0); err != nil {
			t.Fatal(err)
		}
		if err := update(t, n, id, change); err != nil {
			t.Errorf("after the end: %v", err)
		}
		if err := update(t, n, "absent", change); status.Code(err) != codes.NotFound {
			t.Errorf("a container that does not exist: %v", err)
		}
	})
}
