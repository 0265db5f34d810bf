package images

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// image of the catalog.
type image struct {
	names  []string // REGISTRY/REPOSITORY:TAG
	layers []string // names of layers, from the lowest
	config v1.Config
}

// imageSet is a group of images that are wanted together, and so built together.
type imageSet struct {
	name   string
	images []image
}

// sets is the catalog. An image that is in two sets is the same in both.
var sets = []imageSet{
	// What make run and the tests of this project on a cluster need.
	{name: "base", images: clusterImages},

	// What e2e/cluster installs when it is asked to.
	{name: "metrics", images: metricsImages},

	// What the specs of the published e2e.test need, storage's with drivers of their own apart.
	{name: "suite", images: suiteImages},

	// The CSI drivers of specs of storage, and what is beside a driver in its pod.
	{name: "storage", images: storageImages},

	// What critest needs beside base.
	{name: "critest", images: critestImages},

	// The control plane as kubeadm starts it, and the parts of this project that run in pods (e2e/kind).
	{name: "kubeadm", images: kubeadmImages},
	{name: "kubeadm-1.36", images: earlierKubeadmImages},
	{name: "trivet", images: trivetImages},

	// The snapshot controller, which is in storage, too (e2e/kind).
	{name: "snapshots", images: []image{sidecar("snapshot-controller", "v8.6.0")}},

	// Installers whose programs do not work (e2e/kind).
	{name: "broken", images: brokenImages},

	// What an operator, and the injection of sidecars, are tested with.
	{name: "extensions", images: extensionImages},
}

// Sets are the names of the sets.
func Sets() []string {
	names := make([]string, len(sets))
	for i, set := range sets {
		names[i] = set.name
	}
	return names
}

// The registries of the images that tests pull.
const (
	googleCloud = "registry.k8s.io/cloud-provider-gcp/"
	suite       = "registry.k8s.io/e2e-test-images/"
	storage     = "registry.k8s.io/sig-storage/"
	tools       = "gcr.io/k8s-staging-cri-tools/"
)

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// shell is the configuration of an image that runs a shell.
var shell = v1.Config{Env: searchPath, Cmd: []string{"sh"}}

// runs is the configuration of an image with one program.
func runs(entrypoint ...string) v1.Config {
	return v1.Config{Env: searchPath, WorkingDir: "/", Entrypoint: entrypoint}
}

// clusterImages are what pods and their users expect of any registry, and the demonstration.
var clusterImages = []image{
	{
		names: []string{
			"docker.io/library/busybox:latest",
			"docker.io/library/busybox:1.37",
			suite + "busybox:1.37.0-2",
			suite + "busybox:1.36.1-1",
		},
		layers: []string{"busybox", "bash"},
		config: shell,
	},
	pauseImage,
	{
		names:  []string{"docker.io/trivet/demo:1"},
		layers: []string{"busybox", "demo1"},
		config: demoConfig,
	},
	{
		names:  []string{"docker.io/trivet/demo:2"},
		layers: []string{"busybox", "demo2"},
		config: demoConfig,
	},
	{
		names: []string{
			"registry.k8s.io/coredns/coredns:v1.15.0",

			// Those of kubeadm 1.37 and 1.36.
			"registry.k8s.io/coredns/coredns:v1.14.6",
			"registry.k8s.io/coredns/coredns:v1.14.2",
		},
		layers: []string{"busybox", "coredns"},
		config: v1.Config{
			Env:          searchPath,
			User:         "nonroot:nonroot",
			WorkingDir:   "/",
			Entrypoint:   []string{"/coredns"},
			ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
		},
	},
}

var pauseImage = image{
	names: []string{
		"registry.k8s.io/pause:3.10.2",
		"registry.k8s.io/pause:3.10.1",
		"registry.k8s.io/pause:3.10",
		"registry.k8s.io/pause:3.9",
		"k8s.gcr.io/pause:3.9",
	},
	layers: []string{"pause"},
	config: v1.Config{
		Env:        searchPath,
		User:       "65535:65535",
		WorkingDir: "/",
		Entrypoint: []string{"/pause"},
	},
}

var demoConfig = v1.Config{
	Env:          searchPath,
	Entrypoint:   []string{"/bin/demo"},
	Cmd:          []string{"serve"},
	ExposedPorts: map[string]struct{}{"8080/tcp": {}},
}

var metricsImages = []image{
	{
		names:  []string{"registry.k8s.io/metrics-server/metrics-server:v0.9.0"},
		layers: []string{"busybox", "metrics-server"},
		config: v1.Config{
			Env:          searchPath,
			User:         "65534",
			WorkingDir:   "/",
			Entrypoint:   []string{"/metrics-server"},
			ExposedPorts: map[string]struct{}{"10250/tcp": {}},
		},
	},
}

// kubernetesVersion is that of the programs of the control plane (e2e/build.sh), earlierVersion that of the
// minor version before, from which clusters are upgraded (e2e/controlplane/skew/v1.36.mod).
const (
	kubernetesVersion = "v1.37.2"
	earlierVersion    = "v1.36.3"
)

// etcdImage is of the suite, too.
var etcdImage = image{
	names:  []string{"registry.k8s.io/etcd:3.7.0-0"},
	layers: []string{"etcd"},
	config: v1.Config{Env: searchPath, Cmd: []string{"etcd"}},
}

// kubeadmImages are those that `kubeadm config images list` names, beside pause and CoreDNS. One image has
// all programs of the control plane, because they are one binary here.
var kubeadmImages = []image{
	etcdImage,
	{
		names: []string{
			"registry.k8s.io/kube-apiserver:" + kubernetesVersion,
			"registry.k8s.io/kube-controller-manager:" + kubernetesVersion,
			"registry.k8s.io/kube-scheduler:" + kubernetesVersion,
			"registry.k8s.io/kube-proxy:" + kubernetesVersion,
		},
		layers: []string{"busybox", "iptables", "proxy tools", "control plane"},
		config: v1.Config{Env: searchPath, WorkingDir: "/"},
	},
}

// earlierKubeadmImages are the same of the minor version before. Its etcd is the one that is in its binary.
var earlierKubeadmImages = []image{
	{
		names: []string{
			"registry.k8s.io/kube-apiserver:" + earlierVersion,
			"registry.k8s.io/kube-controller-manager:" + earlierVersion,
			"registry.k8s.io/kube-scheduler:" + earlierVersion,
			"registry.k8s.io/kube-proxy:" + earlierVersion,
			"registry.k8s.io/etcd:3.6.8-0",
		},
		layers: []string{"busybox", "iptables", "proxy tools", "control plane", "etcd of the control plane"},
		config: v1.Config{Env: searchPath, WorkingDir: "/"},
	},
}

// trivetImages are the images of deploy.
var trivetImages = []image{
	{
		names:  []string{"docker.io/library/trivet-netd:v0.1.0"},
		layers: []string{"trivet-netd"},
		config: runs("/trivet-netd"),
	},
	{
		names:  []string{"docker.io/library/trivet-csi:v0.1.0"},
		layers: []string{"file systems", "trivet-csi"},
		config: runs("trivet-csi"),
	},
	{
		names:  []string{"docker.io/library/trivet-cri:v0.1.0"},
		layers: []string{"trivet-cri", "trivet-installer"},
		config: runs("/usr/local/bin/trivet-installer", "attend", "--part=cri"),
	},
	{
		names:  []string{"docker.io/library/trivet-node:v0.1.0"},
		layers: []string{"trivet-node", "trivet-installer"},
		config: runs("/usr/local/bin/trivet-installer", "attend", "--part=node"),
	},
}

// brokenImages have programs in trivet's place that start, and do nothing.
var brokenImages = []image{
	{
		names:  []string{"docker.io/library/trivet-node:broken"},
		layers: []string{"broken trivet-node", "trivet-installer"},
		config: runs("/usr/local/bin/trivet-installer", "attend", "--part=node"),
	},
}

// extensionImages are an operator, two versions of etcd that it runs, a client of etcd, and a proxy with the
// webhook that injects it.
var extensionImages = []image{
	{
		names:  []string{"docker.io/trivet/etcd-operator:1"},
		layers: []string{"etcd-operator"},
		config: v1.Config{
			Env:        searchPath,
			User:       "65532:65532",
			WorkingDir: "/",
			Entrypoint: []string{"/etcd-operator"},
		},
	},
	{
		names:  []string{"docker.io/trivet/etcd:v3.6.16"},
		layers: []string{"etcd-3.6"},
		config: v1.Config{Env: searchPath, Cmd: []string{"etcd"}},
	},
	{
		names:  []string{"docker.io/trivet/etcd:v3.7.3"},
		layers: []string{"etcd-3.7"},
		config: v1.Config{Env: searchPath, Cmd: []string{"etcd"}},
	},
	{
		names:  []string{"docker.io/trivet/etcd-writer:1"},
		layers: []string{"etcd-writer"},
		config: runs("/etcd-writer"),
	},
	{
		names:  []string{"docker.io/trivet/sidecar:1"},
		layers: []string{"nft", "sidecar"},
		config: runs("/sidecar"),
	},
}

// LeftOut are the images that the published e2e.test names and that are not built, with the reason.
var LeftOut = map[string]string{
	"invalid.registry.k8s.io/invalid/alpine:3.1": "specs want its registry not to exist",

	"gcr.io/k8s-authenticated-test/agnhost:2.6": "wants credentials of Google Cloud",

	googleCloud + "gcp-compute-persistent-disk-csi-driver:v1.4.0": "needs Google Cloud",

	suite + "node-perf/npb-ep:1.6.0":            noNodeSuite,
	suite + "node-perf/npb-is:1.7.0":            noNodeSuite,
	suite + "node-perf/pytorch-wide-deep:1.0.0": noNodeSuite,

	suite + "volume/iscsi:2.7":         "needs LIO, the kernel's iSCSI target, and one for the whole machine",
	suite + "volume/nfs:1.6.0":         "needs nfsd, the kernel's NFS server",
	storage + "nfs-provisioner:v4.0.8": notServed,

	storage + "csi-external-health-monitor-controller:v0.18.0": notServed + "; specs take it out of the pod",
	storage + "csi-snapshot-metadata:v1.0.0": "its client's module is not on the Go module proxy; " +
		"specs take it out of the pod",
	storage + "hello-populator:v1.0.1":              notServed,
	storage + "volume-data-source-validator:v1.0.0": notServed,
}

const (
	noNodeSuite = "a benchmark of e2e_node.test, which starts a kubelet of its own"
	notServed   = "its module is not on the Go module proxy"
)
