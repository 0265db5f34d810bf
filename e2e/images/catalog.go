package images

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// image of the catalog.
type image struct {
	names  []string // REGISTRY/REPOSITORY:TAG
	layers []layer
	config v1.Config
}

type layer struct {
	name  string
	files []file
}

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

const suite = "registry.k8s.io/e2e-test-images/"

// catalog says what each image consists of. The versions of the suite's images are those of e2e.test v1.37.2.
func catalog(base, bash, netcat []file, p programs) []image {
	shell := layer{"busybox", base}

	// a shell that keeps every variable
	keeper := layer{"bash", bash}
	program := func(name, path string, mode int64) layer {
		return layer{name + path, []file{{path: path, mode: mode, source: p[name]}}}
	}

	names := layer{
		"names",
		[]file{{path: "bin/dig", mode: 0o755, source: p["names"]}, {path: "bin/getent", link: "dig"}},
	}

	agnhost := []layer{shell, keeper, {"netcat", netcat}, names, {"agnhost", agnhostFiles(p)}}
	all := []image{
		{
			[]string{
				"docker.io/library/busybox:latest",
				"docker.io/library/busybox:1.37",
				suite + "busybox:1.37.0-2",
			},
			[]layer{shell, keeper},
			v1.Config{Env: searchPath, Cmd: []string{"sh"}},
		},
		{
			[]string{
				"registry.k8s.io/pause:3.10.2",
				"registry.k8s.io/pause:3.10.1",
				"registry.k8s.io/pause:3.10",
				"registry.k8s.io/pause:3.9",
				"k8s.gcr.io/pause:3.9",
			},
			[]layer{program("pause", "pause", 0o755)},
			v1.Config{
				Env:        searchPath,
				User:       "65535:65535",
				WorkingDir: "/",
				Entrypoint: []string{"/pause"},
			},
		},
		{[]string{suite + "agnhost:2.66.1"}, agnhost, agnhostConfig("2.66.1")},
		{[]string{suite + "agnhost:2.55"}, agnhost, agnhostConfig("2.55")},
		{
			[]string{suite + "nonroot:1.5"},
			[]layer{shell},
			v1.Config{Env: searchPath, User: "1234", Cmd: []string{"sh"}},
		},
		{[]string{suite + "nonewprivs:1.4"}, []layer{shell, program("nonewprivs", "nnp", 0o4755)},
			v1.Config{Env: searchPath, Cmd: []string{"/nnp"}}},
		{[]string{suite + "nginx:1.27.0-2"}, nginx(shell, p, "1.27"), nginxConfig("1.27.0")},
		{[]string{suite + "nginx:1.28.0-2"}, nginx(shell, p, "1.28"), nginxConfig("1.28.0")},
		updateDemo(shell, "kitten"),
		updateDemo(shell, "nautilus"),
		{
			[]string{suite + "sample-apiserver:1.29.2"},
			[]layer{program("sample-apiserver", "sample-apiserver", 0o755)},
			v1.Config{Env: searchPath, Entrypoint: []string{"/sample-apiserver"}},
		},
		{
			[]string{"registry.k8s.io/etcd:3.7.0-0"},
			[]layer{program("etcd", "usr/local/bin/etcd", 0o755)},
			v1.Config{Env: searchPath, Cmd: []string{"etcd"}},
		},
		{
			[]string{suite + "glibc-dns-testing:2.1.1"},
			[]layer{shell, names},
			v1.Config{Env: searchPath, Cmd: []string{"sh"}},
		},
	}

	for _, version := range []string{"1", "2"} {
		all = append(all, image{[]string{
			"docker.io/trivet/demo:" + version,
		}, []layer{shell, program("demo"+version, "bin/demo", 0o755)},
			v1.Config{
				Env:          searchPath,
				Entrypoint:   []string{"/bin/demo"},
				Cmd:          []string{"serve"},
				ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			}})
	}

	all = append(all, critestCatalog([]layer{shell, keeper}, p)...)
	if p["coredns"] != "" {
		all = append(all, image{[]string{
			"registry.k8s.io/coredns/coredns:v1.15.0",
		}, []layer{shell, program("coredns", "coredns", 0o755)},
			v1.Config{
				Env:          searchPath,
				User:         "nonroot:nonroot",
				WorkingDir:   "/",
				Entrypoint:   []string{"/coredns"},
				ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
			}})
	}

	return all
}

// updateDemo is one of the two versions that the specs named Update Demo replace by each other: each serves
// the name of its picture.
func updateDemo(shell layer, animal string) image {
	data := fmt.Sprintf("{\n\"image\": \"%s.jpg\"\n}\n", animal)
	release := "NAME=" + animal + "\n"
	return image{
		[]string{suite + animal + ":1.8"},
		[]layer{shell, {animal, []file{
			{path: "data.json", mode: 0o644, data: []byte(data)},
			{path: "etc/os-release", mode: 0o644, data: []byte(release)},
		}}},
		v1.Config{Env: searchPath, Cmd: []string{"sh", "-c", "busybox httpd -f -p 80 -h /"}},
	}
}

func agnhostConfig(version string) v1.Config {
	ports := map[string]struct{}{"80/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {}, "5000/tcp": {}}
	return v1.Config{
		Env:          searchPath,
		WorkingDir:   "/",
		Entrypoint:   []string{"/agnhost"},
		Cmd:          []string{"pause"},
		ExposedPorts: ports,
		Labels:       map[string]string{"version": version},
	} // or both versions would be one image
}

// agnhostFiles: the program under its two names, the user that a test of supplemental groups looks for, and
// the files its servers read.
func agnhostFiles(p programs) []file {
	return append([]file{
		{path: "agnhost", mode: 0o755, source: p["agnhost"]},
		{path: "agnhost-2", link: "agnhost"},
		{path: "uploads/", mode: 0o755},
		{path: "home/user-defined-in-image/", mode: 0o755},
		{path: "localhost.crt", mode: 0o644, source: p["localhost.crt"]},
		{path: "localhost.key", mode: 0o644, source: p["localhost.key"]},
		{
			path: "etc/passwd",
			mode: 0o644,
			data: []byte(passwd + "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"),
		},
		{
			path: "etc/group",
			mode: 0o644,
			data: []byte(group + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"),
		},
	}, curlFiles()...)
}

func nginx(shell layer, p programs, version string) []layer {
	return []layer{shell, {"nginx" + version, []file{
		{path: "usr/sbin/nginx", mode: 0o755, source: p["demo1"]},
		{
			path: "usr/share/nginx/html/index.html",
			mode: 0o644,
			data: []byte("<title>Welcome to nginx!</title>\n"),
		},
		{path: "etc/nginx/version", mode: 0o644, data: []byte(version + "\n")},
	}}}
}

func nginxConfig(version string) v1.Config {
	return v1.Config{
		Env:          append([]string{"NGINX_VERSION=" + version}, searchPath...),
		Cmd:          []string{"nginx", "-g", "daemon off;"},
		StopSignal:   "SIGQUIT",
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}
}
