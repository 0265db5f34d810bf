package images

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// critestCatalog says what the images consist of that critest of cri-tools v1.37.0 pulls, beside those of the
// suite. The one that it pins by digest (test-image-digest) cannot be made here.
func critestCatalog(shell []layer, p programs) []image {
	const tools = "gcr.io/k8s-staging-cri-tools/"
	base := append(shell, appletsLayer(p))
	config := v1.Config{Env: searchPath, Cmd: []string{"sh"}}

	// critest tells images by their ID alone: an image of its own needs a layer of its own.
	with := func(mark string, names ...string) image {
		mine := layer{"critest-" + mark, []file{{path: mark, mode: 0o644}}}
		return image{names, append(base[:len(base):len(base)], mine), config}
	}

	as := func(user, name string) image {
		mine := config
		mine.User = user
		return image{[]string{tools + name + ":latest"}, base, mine}
	}

	return []image{
		{[]string{suite + "busybox:1.29-2"}, base, config},
		with("test-image-1", tools+"test-image-1:latest"),
		with("test-image-2", tools+"test-image-2:latest"),
		with("test-image-3", tools+"test-image-3:latest"),
		with("test-image-latest", tools+"test-image-latest:latest"),
		with("test-image-tags",
			tools+"test-image-tags:1", tools+"test-image-tags:2", tools+"test-image-tags:3"),
		with("test", tools+"test-image-tag:test"),
		with("all", tools+"test-image-tag:all"),
		as("1002", "test-image-user-uid"),
		as("www-data", "test-image-user-username"),
		as("1003:1004", "test-image-user-uid-group"),
		as("www-data:1004", "test-image-user-username-group"),
		{
			[]string{tools + "test-image-predefined-group:latest"},
			append(base[:len(base):len(base)], predefinedGroup()),
			v1.Config{Env: searchPath, Cmd: []string{"sh"}, User: "1000"},
		},
		{
			[]string{tools + "hostnet-nginx-" + runtime.GOARCH + ":latest"},
			append(base[:len(base):len(base)], webserver(p, "usr/sbin/nginx")),
			v1.Config{
				Env: append([]string{"PORT=12003"}, searchPath...),
				Cmd: []string{"nginx", "-g", "daemon off;"},
			},
		},
		{
			[]string{suite + "nginx:1.14-2"},
			append(base[:len(base):len(base)], webserver(p, "usr/sbin/nginx")),
			v1.Config{Env: searchPath, Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGTERM"},
		},
		{
			[]string{suite + "httpd:2.4.39-4"},
			append(base[:len(base):len(base)], webserver(p, "usr/bin/httpd-foreground")),
			v1.Config{Env: searchPath, Cmd: []string{"httpd-foreground"}},
		},
		{
			[]string{suite + "nonewprivs:1.3"},
			append(base[:len(base):len(base)], layer{"nonewprivs", []file{
				{path: "nnp", mode: 0o4755, source: p["nonewprivs"]},
			}}),
			v1.Config{Env: searchPath, Entrypoint: []string{"/nnp"}},
		},
	}
}

// appletsLayer replaces the applet sh in /bin, which specs of critest call by that path.
func appletsLayer(p programs) layer {
	return layer{"applets", []file{
		{path: "bin/pgrep", mode: 0o755, source: p["applets"]},
		{path: "bin/ipcs", link: "pgrep"},
		{path: "bin/sh", link: "pgrep"},
	}}
}

func webserver(p programs, path string) layer {
	return layer{"webserver-" + path, []file{
		{path: "var/run/", mode: 0o755},
		{path: path, mode: 0o755, source: p["webserver"]},
	}}
}

// predefinedGroup has a user of the image with a supplemental group of the image.
func predefinedGroup() layer {
	const (
		user   = "default-user:x:1000:1000::/home/default-user:/bin/sh\n"
		groups = "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
	)
	return layer{"predefined-group", []file{
		{path: "etc/passwd", mode: 0o644, data: []byte(passwd + user)},
		{path: "etc/group", mode: 0o644, data: []byte(group + groups)},
	}}
}
