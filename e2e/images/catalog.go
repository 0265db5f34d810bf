package images

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// image of the catalog.
type image struct {
	names  []string // REGISTRY/REPOSITORY:TAG
	layers []string // names of layers, from the lowest
	config v1.Config

	// needs is a program without which there is no image; empty: the image is always there.
	needs string
}

// The registries of the images that tests pull.
const (
	suite = "registry.k8s.io/e2e-test-images/"
	tools = "gcr.io/k8s-staging-cri-tools/"
)

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// shell is the configuration of an image that runs a shell.
var shell = v1.Config{Env: searchPath, Cmd: []string{"sh"}}

// catalog says what each image consists of: those of a cluster, then those of critest.
func catalog() []image {
	var all []image
	for _, table := range [][]image{clusterImages, suiteImages, demoImages, critestImages, addOnImages} {
		all = append(all, table...)
	}
	return all
}

// clusterImages are what pods and their users expect of any registry.
var clusterImages = []image{
	{
		names: []string{
			"docker.io/library/busybox:latest",
			"docker.io/library/busybox:1.37",
			suite + "busybox:1.37.0-2",
		},
		layers: []string{"busybox", "bash"},
		config: shell,
	},
	{
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
	},
}

// suiteImages are those of the published test suite, in the versions of e2e.test v1.37.2.
var suiteImages = []image{
	{
		names:  []string{suite + "agnhost:2.66.1"},
		layers: agnhostLayers,
		config: agnhostConfig("2.66.1"),
	},
	{
		names:  []string{suite + "agnhost:2.55"},
		layers: agnhostLayers,
		config: agnhostConfig("2.55"),
	},
	{
		names:  []string{suite + "nonroot:1.5"},
		layers: []string{"busybox"},
		config: v1.Config{Env: searchPath, User: "1234", Cmd: []string{"sh"}},
	},
	{
		names:  []string{suite + "nonewprivs:1.4"},
		layers: []string{"busybox", "nonewprivs"},
		config: v1.Config{Env: searchPath, Cmd: []string{"/nnp"}},
	},
	{
		names:  []string{suite + "nginx:1.27.0-2"},
		layers: []string{"busybox", "nginx-1.27"},
		config: nginxConfig("1.27.0"),
	},
	{
		names:  []string{suite + "nginx:1.28.0-2"},
		layers: []string{"busybox", "nginx-1.28"},
		config: nginxConfig("1.28.0"),
	},
	{
		names:  []string{suite + "kitten:1.8"},
		layers: []string{"busybox", "kitten"},
		config: pictureConfig,
	},
	{
		names:  []string{suite + "nautilus:1.8"},
		layers: []string{"busybox", "nautilus"},
		config: pictureConfig,
	},
	{
		names:  []string{suite + "sample-apiserver:1.29.2"},
		layers: []string{"sample-apiserver"},
		config: v1.Config{Env: searchPath, Entrypoint: []string{"/sample-apiserver"}},
	},
	{
		names:  []string{"registry.k8s.io/etcd:3.7.0-0"},
		layers: []string{"etcd"},
		config: v1.Config{Env: searchPath, Cmd: []string{"etcd"}},
	},
	{
		names:  []string{suite + "glibc-dns-testing:2.1.1"},
		layers: []string{"busybox", "names"},
		config: shell,
	},
}

var demoImages = []image{
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
}

// addOnImages are those of add-ons. Each is there if its program was built.
var addOnImages = []image{
	{
		names:  []string{"registry.k8s.io/metrics-server/metrics-server:v0.9.0"},
		layers: []string{"busybox", "metrics-server"},
		needs:  "metrics-server",
		config: v1.Config{
			Env:          searchPath,
			User:         "65534",
			WorkingDir:   "/",
			Entrypoint:   []string{"/metrics-server"},
			ExposedPorts: map[string]struct{}{"10250/tcp": {}},
		},
	},
	{
		names:  []string{"registry.k8s.io/coredns/coredns:v1.15.0"},
		layers: []string{"busybox", "coredns"},
		needs:  "coredns",
		config: v1.Config{
			Env:          searchPath,
			User:         "nonroot:nonroot",
			WorkingDir:   "/",
			Entrypoint:   []string{"/coredns"},
			ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
		},
	},
}

var agnhostLayers = []string{"busybox", "bash", "netcat", "names", "wget", "coredns", "agnhost"}

// agnhostConfig has the version, or both versions would be one image.
func agnhostConfig(version string) v1.Config {
	return v1.Config{
		Env:        searchPath,
		WorkingDir: "/",
		Entrypoint: []string{"/agnhost"},
		Cmd:        []string{"pause"},
		ExposedPorts: map[string]struct{}{
			"80/tcp":   {},
			"5000/tcp": {},
			"8080/tcp": {},
			"8081/tcp": {},
			"9376/tcp": {},
		},
		Labels: map[string]string{"version": version},
	}
}

func nginxConfig(version string) v1.Config {
	return v1.Config{
		Env:          append([]string{"NGINX_VERSION=" + version}, searchPath...),
		Cmd:          []string{"nginx", "-g", "daemon off;"},
		StopSignal:   "SIGQUIT",
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}
}

// pictureConfig is that of the two versions that the specs named Update Demo replace by each other: each
// serves the name of its picture.
var pictureConfig = v1.Config{
	Env: searchPath,
	Cmd: []string{"sh", "-c", "busybox httpd -f -p 80 -h /"},
}

var demoConfig = v1.Config{
	Env:          searchPath,
	Entrypoint:   []string{"/bin/demo"},
	Cmd:          []string{"serve"},
	ExposedPorts: map[string]struct{}{"8080/tcp": {}},
}
