package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// testCase is something that makes a node evict, or must not make it evict.
type testCase struct {
	name  string
	about string

	// split is whether images and containers are on a disk of their own.
	split bool

	// inTurns is whether the nodes are not filled at the same time: what runs short belongs to all of them.
	inTurns bool

	// settings are those of the KubeletConfiguration that the case wants, by what the node has free.
	settings func(free) settings

	// before are pods that run to their end, and then stay or are removed, before free is looked at.
	before []workload

	// pods are created at once, last ones when what these have taken was measured, and late ones when the
	// node has the condition.
	pods      []workload
	last      []workload
	condition corev1.NodeConditionType
	late      []workload

	// evicted are the pods that kubelet evicts, in order where there is one.
	evicted []string
}

// free is what a node has at the start of a case.
type free struct {
	memory       int64 // bytes of the machine
	disk, images space
	pids         int64
}

type space struct{ bytes, inodes int64 }

type settings map[string]any

const mib = 1 << 20

// hard is a configuration with hard thresholds and no others.
func hard(thresholds map[string]string) settings { return settings{"evictionHard": thresholds} }

func (s settings) with(key string, value any) settings {
	s[key] = value
	return s
}

func left(bytes, used int64) string { return fmt.Sprint(bytes - used*mib) }

// limited is a container that may have 20 MiB of local storage.
var limited = limits(corev1.ResourceEphemeralStorage, "20Mi")

var cases = []testCase{
	{
		name:  "limits",
		about: "limits of local storage: 20 MiB each; who writes 30 MB is over it, who writes 10 MB is not",
		settings: func(free) settings {
			return hard(map[string]string{"nodefs.available": "1%"}).with("volumeStatsAggPeriod", "1m0s")
		},
		pods: []workload{
			{name: "dir-over", script: fill("/v", 30), volume: dirOf("20Mi")},
			{name: "dir-under", script: fill("/v", 10), volume: dirOf("20Mi")},
			{name: "memory-full", script: fill("/v", 30), volume: memoryOf("20Mi")},
			{name: "layer-over", script: fill("/root", 30), resources: limited},
			{name: "layer-under", script: fill("/root", 10), resources: limited},
			{name: "logs-over", script: logged(30), resources: limited},
			{name: "pod-over", script: fill("/v", 30), volume: dirOf(""), resources: limited},
			{name: "other-over", script: fill("/root", 30), second: limited},
			{name: "graceful", script: fill("/v", 30), volume: dirOf("20Mi"), graceful: true},
			{name: "sidecar-over", sidecar: fill("/root", 30), resources: limited},
			{name: "sidecar-under", sidecar: fill("/root", 10), resources: limited},
		},
		evicted: []string{
			"dir-over", "layer-over", "logs-over", "pod-over", "other-over", "sidecar-over",
		},
	},
	{
		name: "nodefs",
		about: "420 MB in volumes on a disk that may give 390 MiB, and wants 220 MiB back; requests " +
			"and priorities",
		condition: corev1.NodeDiskPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"nodefs.available": left(f.disk.bytes, 390)}).
				with("evictionMinimumReclaim", map[string]string{"nodefs.available": "220Mi"})
		},
		pods: []workload{
			{name: "small", script: fill("/v", 20), volume: dirOf("")},
			{name: "big", script: fill("/v", 200), volume: dirOf("")},
			{name: "asked", script: fill("/v", 60), volume: dirOf(""), resources: requestOf("100Mi")},
			{name: "important", script: fill("/v", 100), volume: dirOf(""), priority: importantClass},
		},
		last: []workload{{
			name:      "last",
			script:    fill("/v", 40),
			volume:    dirOf(""),
			resources: requestOf("100Mi"),
		}},
		late: []workload{
			{name: "late"},
			{name: "late-tolerant", tolerates: true},
			{name: "late-critical", priority: criticalClass},
		},
		evicted: []string{"big", "small", "important"},
	},
	{
		name:      "inodes",
		about:     "22000 files on a disk that may give 15000; the pod with the most bytes has few of them",
		condition: corev1.NodeDiskPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"nodefs.inodesFree": fmt.Sprint(f.disk.inodes - 15000)})
		},
		pods: []workload{
			{name: "many", script: files("/v", 20000), volume: dirOf("")},
			{name: "few", script: files("/v", 2000), volume: dirOf("")},
			{name: "bytes", script: fill("/v", 100), volume: dirOf("")},
		},
		evicted: []string{"many"},
	},
	{
		name:      "images",
		about:     "60 MB on a disk that may give 40 MiB and has unused images: they go, no pod does",
		condition: corev1.NodeDiskPressure,
		before: []workload{
			{
				name:    "etcd",
				image:   "registry.k8s.io/etcd:3.7.0-0",
				command: []string{"etcd", "--version"},
				gone:    true,
			},
			{
				name:    "agnhost",
				image:   "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
				command: []string{"/agnhost", "--help"},
				gone:    true,
			},
			{
				name:    "sample",
				image:   "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2",
				command: []string{"/sample-apiserver", "--help"},
				gone:    true,
			},
		},
		settings: func(f free) settings {
			return hard(map[string]string{"nodefs.available": left(f.disk.bytes, 40)})
		},
		pods: []workload{{name: "hog", script: fill("/v", 60), volume: dirOf("")}},
	},
	{
		name:      "dead",
		about:     "60 MB on a disk that may give 40 MiB, where a pod that has ended holds 60 MB: they go",
		condition: corev1.NodeDiskPressure,
		before:    []workload{{name: "ended", command: []string{"sh", "-c", fill("/root", 60)}}},
		settings: func(f free) settings {
			return hard(map[string]string{"nodefs.available": left(f.disk.bytes, 40)})
		},
		pods: []workload{{name: "hog", script: fill("/v", 60), volume: dirOf("")}},
	},
	{
		name: "soft",
		about: "150 MB over a soft threshold of 100 MiB, grace 20 s; the pod ignores SIGTERM, and may " +
			"do so for 5 s",
		condition: corev1.NodeDiskPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"memory.available": "0%"}).
				with("evictionSoft", map[string]string{"nodefs.available": left(f.disk.bytes, 100)}).
				with("evictionSoftGracePeriod", map[string]string{"nodefs.available": "20s"}).
				with("evictionMaxPodGracePeriod", 5)
		},
		pods: []workload{
			{name: "stubborn", script: "trap '' TERM; " + fill("/v", 150), volume: dirOf(""), grace: 60},
			{name: "small", script: fill("/v", 10), volume: dirOf("")},
		},
		evicted: []string{"stubborn"},
	},
	{
		name:      "memory",
		about:     "320 MB in pods that may have 300 MiB, and must give 100 MiB back; requests, priorities",
		condition: corev1.NodeMemoryPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"memory.available": "100Mi"}).
				with("kubeReserved", map[string]string{"memory": left(f.memory, 400)}).
				with("evictionMinimumReclaim", map[string]string{"memory.available": "100Mi"})
		},
		pods: []workload{
			{name: "best", script: hold(90)},
			{name: "important", script: hold(90), priority: importantClass},
			{name: "over", script: hold(60), resources: request(corev1.ResourceMemory, "20Mi")},
			{name: "under", script: hold(30), resources: request(corev1.ResourceMemory, "60Mi")},
		},
		last: []workload{{name: "last", script: hold(50), resources: guaranteed("80Mi")}},
		late: []workload{
			{name: "late"},
			{name: "late-tolerant", tolerates: true},
			{name: "late-burstable", resources: request(corev1.ResourceMemory, "10Mi")},
		},
		evicted: []string{"best", "over"},
	},
	{
		name:      "pids",
		about:     "1500 processes on a node that may give 800",
		inTurns:   true,
		condition: corev1.NodePIDPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"pid.available": fmt.Sprint(f.pids - 800)})
		},
		pods: []workload{
			{name: "forks", script: "for i in $(seq 1500); do sleep 1000 & done"},
			{name: "quiet"},
		},
		evicted: []string{"forks"},
	},
	{
		name:      "imagefs",
		about:     "writable layers of 220 MB on an image disk that may give 150 MiB; volumes are elsewhere",
		split:     true,
		condition: corev1.NodeDiskPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"imagefs.available": left(f.images.bytes, 150)})
		},
		pods: []workload{
			{name: "layer", script: fill("/root", 200)},
			{name: "small", script: fill("/root", 20)},
			{name: "volume", script: fill("/v", 300), volume: dirOf("")},
		},
		evicted: []string{"layer"},
	},
	{
		name:      "split-nodefs",
		about:     "volumes of 220 MB on a disk that may give 150 MiB; layers are elsewhere",
		split:     true,
		condition: corev1.NodeDiskPressure,
		settings: func(f free) settings {
			return hard(map[string]string{"nodefs.available": left(f.disk.bytes, 150)})
		},
		pods: []workload{
			{name: "layer", script: fill("/root", 300)},
			{name: "volume", script: fill("/v", 200), volume: dirOf("")},
			{name: "small", script: fill("/v", 20), volume: dirOf("")},
		},
		evicted: []string{"volume"},
	},
	{
		name:      "imagefs-images",
		about:     "60 MB in a layer on an image disk that may give 40 MiB and has unused images: they go",
		split:     true,
		condition: corev1.NodeDiskPressure,
		before: []workload{
			{
				name:    "etcd",
				image:   "registry.k8s.io/etcd:3.7.0-0",
				command: []string{"etcd", "--version"},
				gone:    true,
			},
			{
				name:    "agnhost",
				image:   "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
				command: []string{"/agnhost", "--help"},
				gone:    true,
			},
			{
				name:    "sample",
				image:   "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2",
				command: []string{"/sample-apiserver", "--help"},
				gone:    true,
			},
		},
		settings: func(f free) settings {
			return hard(map[string]string{"imagefs.available": left(f.images.bytes, 40)})
		},
		pods: []workload{{name: "hog", script: fill("/root", 60)}},
	},
	{
		name:     "split-limits",
		about:    "limits of local storage where layers are on another disk",
		split:    true,
		settings: func(free) settings { return hard(map[string]string{"nodefs.available": "1%"}) },
		pods: []workload{
			{name: "dir-over", script: fill("/v", 30), volume: dirOf("20Mi")},
			{name: "layer-over", script: fill("/root", 30), resources: limited},
			{name: "logs-over", script: logged(30), resources: limited},
		},
		evicted: []string{"dir-over", "layer-over", "logs-over"},
	},
}
