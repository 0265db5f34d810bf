package images

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// suiteImages are those of the published test suite, in the versions of e2e.test v1.37.2.
var suiteImages = []image{
	{
		names:  []string{suite + "agnhost:2.66.1"},
		layers: agnhostLayers(),
		config: agnhostConfig("2.66.1"),
	},
	{
		names:  []string{suite + "agnhost:2.55"},
		layers: agnhostLayers(),
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
		layers: agnhostLayers("kitten"),
		config: pictureConfig,
	},
	{
		names:  []string{suite + "nautilus:1.8"},
		layers: agnhostLayers("nautilus"),
		config: pictureConfig,
	},
	{
		names:  []string{suite + "sample-apiserver:1.29.2"},
		layers: []string{"sample-apiserver"},
		config: v1.Config{Env: searchPath, Entrypoint: []string{"/sample-apiserver"}},
	},
	etcdImage,
	{
		names:  []string{suite + "glibc-dns-testing:2.1.1"},
		layers: []string{"busybox", "names", "dd"},
		config: shell,
	},
	{
		names:  []string{suite + "ipc-utils:1.4"},
		layers: []string{"busybox", "ipcs"},
		config: shell,
	},
	{
		names:  []string{suite + "perl:5.26"},
		layers: []string{"busybox", "perl"},
		config: v1.Config{Env: searchPath, Cmd: []string{"perl", "-de0"}},
	},
	{
		names:  []string{suite + "resource-consumer:1.14"},
		layers: []string{"busybox", "resource-consumer"},
		config: runs("/consumer"),
	},
	{
		names:  []string{suite + "regression-issue-74839:1.5"},
		layers: []string{"regression-issue-74839"},
		config: runs("/regression-issue-74839"),
	},
	{
		names:  []string{suite + "sample-device-plugin:1.7", suite + "sample-device-plugin:1.8.0"},
		layers: []string{"busybox", "sample-device-plugin"},
		config: runs("/sampledeviceplugin", "-alsologtostderr"),
	},
	{
		names:  []string{suite + "apparmor-loader:1.4"},
		layers: []string{"busybox", "apparmor-loader"},
		config: v1.Config{
			Env:        searchPath,
			Entrypoint: []string{"/usr/bin/loader", "-logtostderr", "-v=2"},
			Cmd:        []string{"/profiles"},
		},
	},
	{
		names:  []string{"registry.k8s.io/build-image/distroless-iptables:v0.9.9"},
		layers: []string{"busybox", "iptables"},
		config: v1.Config{Env: searchPath, Cmd: []string{"/bin/sh"}},
	},
}

// agnhostLayers are agnhost's, and further ones.
func agnhostLayers(more ...string) []string {
	return append([]string{
		"busybox", "alpine", "bash", "netcat", "names", "wget", "coredns", "agnhost", "registry of pause",
	}, more...)
}

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
	Env:        searchPath,
	WorkingDir: "/",
	Entrypoint: []string{"/agnhost"},
	Cmd:        []string{"test-webserver"},
}

// storageImages are a CSI driver and the sidecars of drivers, as the manifests in e2e.test v1.37.2 name them.
var storageImages = []image{
	sidecar("csi-attacher", "v4.12.0"),
	sidecar("csi-provisioner", "v6.3.0"),
	sidecar("csi-resizer", "v2.2.0"),
	sidecar("csi-snapshotter", "v8.6.0"),
	sidecar("snapshot-controller", "v8.6.0"),
	sidecar("csi-node-driver-registrar", "v2.17.0"),
	sidecar("livenessprobe", "v2.19.0"),
	{
		names:  []string{storage + "hostpathplugin:v1.17.1"},
		layers: []string{"busybox", "hostpathplugin"},
		config: runs("/hostpathplugin"),
	},
}

// sidecar is an image of one program of the image's name.
func sidecar(name, version string) image {
	return image{
		names:  []string{storage + name + ":" + version},
		layers: []string{name},
		config: runs("/" + name),
	}
}
