package images

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// critestImages are those that critest of cri-tools v1.37.0 pulls, beside those of the suite. The one that it
// pins by digest (test-image-digest) cannot be made here. Specs tell images apart by their IDs alone, so an
// image of its own needs a layer or a configuration of its own.
var critestImages = []image{
	{
		names:  []string{suite + "busybox:1.29-2"},
		layers: critestBase(),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-1:latest"},
		layers: critestBase("mark test-image-1"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-2:latest"},
		layers: critestBase("mark test-image-2"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-3:latest"},
		layers: critestBase("mark test-image-3"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-latest:latest"},
		layers: critestBase("mark test-image-latest"),
		config: shell,
	},
	{
		names: []string{
			tools + "test-image-tags:1",
			tools + "test-image-tags:2",
			tools + "test-image-tags:3",
		},
		layers: critestBase("mark test-image-tags"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-tag:test"},
		layers: critestBase("mark test"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-tag:all"},
		layers: critestBase("mark all"),
		config: shell,
	},
	{
		names:  []string{tools + "test-image-user-uid:latest"},
		layers: critestBase(),
		config: shellOf("1002"),
	},
	{
		names:  []string{tools + "test-image-user-username:latest"},
		layers: critestBase(),
		config: shellOf("www-data"),
	},
	{
		names:  []string{tools + "test-image-user-uid-group:latest"},
		layers: critestBase(),
		config: shellOf("1003:1004"),
	},
	{
		names:  []string{tools + "test-image-user-username-group:latest"},
		layers: critestBase(),
		config: shellOf("www-data:1004"),
	},
	{
		names:  []string{tools + "test-image-predefined-group:latest"},
		layers: critestBase("predefined-group"),
		config: shellOf("1000"),
	},
	{
		names:  []string{tools + "hostnet-nginx-" + runtime.GOARCH + ":latest"},
		layers: critestBase("webserver nginx"),
		config: v1.Config{
			Env: append([]string{"PORT=12003"}, searchPath...),
			Cmd: []string{"nginx", "-g", "daemon off;"},
		},
	},
	{
		names:  []string{suite + "nginx:1.14-2"},
		layers: critestBase("webserver nginx"),
		config: v1.Config{
			Env:        searchPath,
			Cmd:        []string{"nginx", "-g", "daemon off;"},
			StopSignal: "SIGTERM",
		},
	},
	{
		names:  []string{suite + "httpd:2.4.39-4"},
		layers: critestBase("webserver httpd"),
		config: v1.Config{Env: searchPath, Cmd: []string{"httpd-foreground"}},
	},
	{
		names:  []string{suite + "nonewprivs:1.3"},
		layers: critestBase("nonewprivs"),
		config: v1.Config{Env: searchPath, Entrypoint: []string{"/nnp"}},
	},
}

// critestBase are the layers that all of critest's images have, and further ones.
func critestBase(more ...string) []string {
	return append([]string{"busybox", "bash", "applets"}, more...)
}

// shellOf is a shell that runs as a user.
func shellOf(user string) v1.Config {
	config := shell
	config.User = user
	return config
}
