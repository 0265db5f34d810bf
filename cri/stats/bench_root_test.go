package stats_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/cri/stats/meter"
)

// pair is a CNI plugin that makes both ends of a veth pair, eth0 and eth1, in the pod.
const pair = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) nsenter --net=$CNI_NETNS ip link add eth0 type veth peer name eth1
	nsenter --net=$CNI_NETNS ip link set eth0 up
	nsenter --net=$CNI_NETNS ip link set eth1 up
	nsenter --net=$CNI_NETNS ip address add 10.1.2.3/24 dev eth0
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],
		"ips":[{"address":"10.1.2.3/24","interface":0}]}' ;;
esac
`

// benchmarkPods is how many pods of one container a full node has.
const benchmarkPods = 110

// BenchmarkLists asks a real trivet-cri, with a pause between calls so that each is one reading of its own.
func BenchmarkLists(b *testing.B) {
	n := nodetest.New(b)
	n.Network(pair)
	n.Pull()
	for i := range benchmarkPods {
		pod := n.Sandbox(fmt.Sprint("pod", i), ownGroup(n, i))
		n.Run(pod, "main", []string{"sleep", "100000"}, nil)
	}

	ctx := b.Context()
	for _, call := range []struct {
		name string
		list func() (proto.Message, error)
	}{
		{"ListContainerStats", func() (proto.Message, error) {
			return n.Pods.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
		}},
		{"ListPodSandboxStats", func() (proto.Message, error) {
			return n.Pods.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
		}},
		{"ListPodSandboxMetrics", func() (proto.Message, error) {
			return n.Pods.ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
		}},
	} {
		b.Run(call.name, func(b *testing.B) {
			var size int
			for b.Loop() {
				b.StopTimer()
				<-time.After(meter.MaxAge)
				b.StartTimer()

				answer, err := call.list()
				if err != nil {
					b.Fatal(err)
				}
				size = proto.Size(answer)
			}
			b.ReportMetric(float64(size), "B/answer")
		})
	}
}

// ownGroup is a change for Sandbox: the pod has a network, and a control group of its own, as kubelet's have.
func ownGroup(n *nodetest.Node, i int) func(*runtimeapi.PodSandboxConfig) {
	return func(config *runtimeapi.PodSandboxConfig) {
		config.Linux.CgroupParent = fmt.Sprintf("%s/pod%d", n.Group(), i)
		config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
	}
}
