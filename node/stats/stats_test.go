package stats

import (
	"path/filepath"
	"slices"
	"testing"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func summary(t *testing.T, f *fake, onlyCPUAndMemory bool) *statsapi.Summary {
	t.Helper()
	s, err := collect(t, f).Summary(t.Context(), onlyCPUAndMemory)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSummaryOfTheNode(t *testing.T) {
	n := summary(t, &fake{images: t.TempDir()}, false).Node
	if n.NodeName != "n" || !n.StartTime.Time.Equal(made) || *n.CPU.UsageNanoCores != 2e8 {
		t.Errorf("node %s, started %v, CPU %+v", n.NodeName, n.StartTime, n.CPU)
	}

	// The recorded machine has set aside 100 huge pages of 2 MiB, more than is available.
	m := n.Memory
	if *m.WorkingSetBytes != 4096 || *m.UsageBytes != 5000 || *m.RSSBytes != 3000 || *m.AvailableBytes != 0 {
		t.Errorf("memory %+v", m)
	}
	if *n.Swap.SwapUsageBytes != 10 || *n.Swap.SwapAvailableBytes != 40 || n.IO.PSI.Some.Total != 1000 {
		t.Errorf("swap %+v, IO %+v", n.Swap, n.IO)
	}
	if *n.Rlimit.MaxPID != 4194304 || *n.Rlimit.NumOfRunningProcesses != 345 {
		t.Errorf("rlimit %+v", n.Rlimit)
	}
	if n.Network.Name != "" || n.Network.Interfaces[0].Name != "ens3" {
		t.Errorf("network %+v", n.Network)
	}

	// The capacity is the file system's, what is used of it the images'.
	fs := n.Runtime.ImageFs
	if *fs.UsedBytes != 99 || *fs.InodesUsed != 9 || *fs.CapacityBytes == 0 || *n.Fs.CapacityBytes == 0 ||
		n.Runtime.ContainerFs == nil {
		t.Errorf("images %+v, root %+v", fs, n.Fs)
	}

	var system []string
	for _, c := range n.SystemContainers {
		system = append(system, c.Name)
		if c.CPU == nil || c.Memory == nil {
			t.Errorf("%+v", c)
		}
	}

	if want := []string{"kubelet", "runtime", "pods"}; !slices.Equal(system, want) {
		t.Errorf("system containers %q, want %q", system, want)
	}
}

func TestImagesOnAFileSystemThatCannotBeAsked(t *testing.T) {
	f := &fake{images: filepath.Join(t.TempDir(), "none")}
	c := collect(t, f)
	if fs := c.imageFS(t.Context()); *fs.UsedBytes != 99 || fs.CapacityBytes != nil {
		t.Errorf("%+v", fs)
	}
	f.failed = true
	if fs := c.imageFS(t.Context()); fs != nil {
		t.Errorf("without an answer: %+v", fs)
	}
}

func TestSummaryOfPods(t *testing.T) {
	s := summary(t, &fake{images: t.TempDir()}, false)
	if len(s.Pods) != 2 || s.Pods[0].PodRef.Name != "quiet" || len(s.Pods[0].Containers) != 0 {
		t.Fatalf("%+v", s.Pods)
	}

	web := s.Pods[1]
	if !web.StartTime.Time.Equal(made) || *web.ProcessStats.ProcessCount != 3 || web.IO == nil {
		t.Errorf("%+v", web)
	}
	if n := web.Network; n.Name != "eth0" || *n.RxBytes != 10 || *n.TxBytes != 20 || len(n.Interfaces) != 2 {
		t.Errorf("network %+v", n)
	}
	if len(web.Containers) != 1 || web.Containers[0].Name != "app" {
		t.Fatalf("containers %+v: one has ended", web.Containers)
	}

	app := web.Containers[0]
	if *app.CPU.UsageNanoCores != 2e8 || *app.Memory.AvailableBytes != 9000-4096 || app.IO == nil ||
		*app.Swap.SwapAvailableBytes != 40 {
		t.Errorf("%+v", app)
	}

	if !app.StartTime.Time.Equal(made) || *app.Rootfs.UsedBytes != 7 || *app.Rootfs.CapacityBytes == 0 ||
		*app.Logs.UsedBytes != 20 || *app.Logs.AvailableBytes == 0 {
		t.Errorf("root file system %+v, logs %+v", app.Rootfs, app.Logs)
	}

	// What is in memory is shown as a volume, and is not of the disk.
	sizes := map[string]uint64{}
	for _, v := range web.VolumeStats {
		sizes[v.Name] = *v.UsedBytes
	}

	if sizes["cache"] != 300 || sizes["shm"] != 4000 || *web.EphemeralStorage.UsedBytes != 327 {
		t.Errorf("volumes %v, ephemeral storage %+v", sizes, web.EphemeralStorage)
	}
}

func TestSummaryOfCPUAndMemoryHasNothingElse(t *testing.T) {
	s := summary(t, &fake{}, true)
	web := s.Pods[1]
	if s.Node.Fs != nil || s.Node.Runtime != nil || s.Node.Network != nil || web.Network != nil ||
		web.ProcessStats != nil || web.VolumeStats != nil || web.EphemeralStorage != nil ||
		web.Containers[0].Rootfs != nil {
		t.Errorf("%+v", s)
	}

	if web.CPU == nil || web.Memory == nil || web.Swap == nil || web.Containers[0].CPU == nil ||
		len(s.Node.SystemContainers) != 3 {
		t.Errorf("%+v", web)
	}
}

func TestSummaryWithoutTheRuntimeIsAnError(t *testing.T) {
	if s, err := collect(t, &fake{failed: true}).Summary(t.Context(), false); err == nil {
		t.Errorf("%+v", s)
	}
}
