package runtime_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/runtime"
)

func n(value uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: value} }

// fullStats are figures of a pod with one container, each of them another number.
func fullStats(at time.Time) *cri.PodSandboxStats {
	now := at.UnixNano()
	return &cri.PodSandboxStats{
		Attributes: &cri.PodSandboxAttributes{
			Id: "s",
			Metadata: &cri.PodSandboxMetadata{
				Name:      "p",
				Namespace: "n",
				Uid:       "u",
				Attempt:   2,
			},
		},
		Linux: &cri.LinuxPodSandboxStats{
			Cpu:     &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: n(1), UsageNanoCores: n(2)},
			Process: &cri.ProcessUsage{ProcessCount: n(3)},

			Network: &cri.NetworkUsage{
				Timestamp: now,
				DefaultInterface: &cri.NetworkInterfaceUsage{
					Name:     "eth0",
					RxBytes:  n(4),
					RxErrors: n(5),
					TxBytes:  n(6),
					TxErrors: n(7),
				},
				Interfaces: []*cri.NetworkInterfaceUsage{{Name: "eth1", RxBytes: n(8)}},
			},

			Containers: []*cri.ContainerStats{{
				Attributes: &cri.ContainerAttributes{Id: "id", Metadata: &cri.ContainerMetadata{Name: "c"}},
				Memory: &cri.MemoryUsage{
					Timestamp:       now,
					AvailableBytes:  n(10),
					UsageBytes:      n(11),
					WorkingSetBytes: n(12),
					RssBytes:        n(13),
					PageFaults:      n(14),
					MajorPageFaults: n(15),
				},
				WritableLayer: &cri.FilesystemUsage{Timestamp: now, UsedBytes: n(16), InodesUsed: n(17)},
			}},
		},
	}
}

func TestStatsAreInTheTypesOfTheAPI(t *testing.T) {
	s, c := connect(t)
	at := time.Unix(1_000_000, 7)
	s.SetStats(fullStats(at), &cri.PodSandboxStats{})
	got, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	now := metav1.NewTime(at)
	eth0 := statsapi.InterfaceStats{
		Name:     "eth0",
		RxBytes:  new(uint64(4)),
		RxErrors: new(uint64(5)),
		TxBytes:  new(uint64(6)),
		TxErrors: new(uint64(7)),
	}

	want := []runtime.PodStats{
		{
			Pod:     runtime.Pod{UID: "u", Namespace: "n", Name: "p"},
			Attempt: 2,
			CPU: &statsapi.CPUStats{
				Time:                 now,
				UsageCoreNanoSeconds: new(uint64(1)),
				UsageNanoCores:       new(uint64(2)),
			},
			Processes: new(uint64(3)),
			Network: &statsapi.NetworkStats{
				Time:           now,
				InterfaceStats: eth0,
				Interfaces:     []statsapi.InterfaceStats{eth0, {Name: "eth1", RxBytes: new(uint64(8))}},
			},
			Containers: []runtime.ContainerStats{{
				ID:   "id",
				Name: "c",
				Memory: &statsapi.MemoryStats{
					Time:            now,
					AvailableBytes:  new(uint64(10)),
					UsageBytes:      new(uint64(11)),
					WorkingSetBytes: new(uint64(12)),
					RSSBytes:        new(uint64(13)),
					PageFaults:      new(uint64(14)),
					MajorPageFaults: new(uint64(15)),
				},
				Rootfs: &statsapi.FsStats{
					Time:       now,
					UsedBytes:  new(uint64(16)),
					InodesUsed: new(uint64(17)),
				},
			}},
		},
		{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatsOfARuntimeThatHasNone(t *testing.T) {
	s, c := connect(t)
	s.FailOn("ListPodSandboxStats", errors.New("not yet"))
	if _, err := c.Stats(t.Context()); err == nil || err.Error() != "not yet" {
		t.Errorf("error %v", err)
	}
}
