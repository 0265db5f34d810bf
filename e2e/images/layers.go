package images

import (
	"fmt"
	"strings"
)

// inputs is what layers are made of: files of Debian's packages and programs that were built.
type inputs struct {
	busybox  []file
	bash     []file
	netcat   []file
	programs programs
}

// files returns the files of a layer by its name in the catalog.
func (in inputs) files(layer string) ([]file, error) {
	if mark, ok := strings.CutPrefix(layer, "mark "); ok {
		return []file{{path: mark, mode: 0o644}}, nil
	}

	switch layer {
	case "busybox":
		return in.busybox, nil
	case "bash":
		return in.bash, nil
	case "netcat":
		return in.netcat, nil
	case "names":
		return append(in.program("names", "bin/dig", 0o755), file{path: "bin/getent", link: "dig"}), nil
	case "wget":
		return in.program("wget", "bin/wget", 0o755), nil
	case "applets":
		return in.applets(), nil
	case "agnhost":
		return in.agnhost(), nil
	case "pause", "coredns", "metrics-server", "sample-apiserver":
		return in.program(layer, layer, 0o755), nil
	case "demo1", "demo2":
		return in.program(layer, "bin/demo", 0o755), nil
	case "etcd":
		return in.program("etcd", "usr/local/bin/etcd", 0o755), nil
	case "nonewprivs":
		return in.program("nonewprivs", "nnp", 0o4755), nil
	case "nginx-1.27":
		return in.nginx("1.27"), nil
	case "nginx-1.28":
		return in.nginx("1.28"), nil
	case "kitten", "nautilus":
		return picture(layer), nil
	case "webserver nginx":
		return in.webserver("usr/sbin/nginx"), nil
	case "webserver httpd":
		return in.webserver("usr/bin/httpd-foreground"), nil
	case "predefined-group":
		return predefinedGroup(), nil
	}

	return nil, fmt.Errorf("no layer is called %q", layer)
}

func (in inputs) program(name, path string, mode int64) []file {
	return []file{{path: path, mode: mode, source: in.programs[name]}}
}

// applets replaces the applet sh in /bin, which specs of critest call by that path.
func (in inputs) applets() []file {
	return append(in.program("applets", "bin/pgrep", 0o755),
		file{path: "bin/ipcs", link: "pgrep"},
		file{path: "bin/sh", link: "pgrep"})
}

// agnhost has the program under its two names, the user that a test of supplemental groups looks for, and the
// files that its servers read.
func (in inputs) agnhost() []file {
	const (
		user   = "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"
		groups = "user-defined-in-image:x:1000:\n" +
			"group-defined-in-image:x:50000:user-defined-in-image\n"
	)

	return append([]file{
		{path: "agnhost", mode: 0o755, source: in.programs["agnhost"]},
		{path: "agnhost-2", link: "agnhost"},
		{path: "uploads/", mode: 0o755},
		{path: "home/user-defined-in-image/", mode: 0o755},
		{path: "localhost.crt", mode: 0o644, source: in.programs["localhost.crt"]},
		{path: "localhost.key", mode: 0o644, source: in.programs["localhost.key"]},
		{path: "etc/passwd", mode: 0o644, data: []byte(passwd + user)},
		{path: "etc/group", mode: 0o644, data: []byte(group + groups)},
	}, curlFiles()...)
}

// nginx is the demo's server under nginx's name, and the page that specs look for.
func (in inputs) nginx(version string) []file {
	const page = "<title>Welcome to nginx!</title>\n"
	return []file{
		{path: "usr/sbin/nginx", mode: 0o755, source: in.programs["demo1"]},
		{path: "usr/share/nginx/html/index.html", mode: 0o644, data: []byte(page)},
		{path: "etc/nginx/version", mode: 0o644, data: []byte(version + "\n")},
	}
}

func (in inputs) webserver(path string) []file {
	return []file{
		{path: "var/run/", mode: 0o755},
		{path: path, mode: 0o755, source: in.programs["webserver"]},
	}
}

// picture is what an image named after an animal serves.
func picture(animal string) []file {
	data := fmt.Sprintf("{\n\"image\": \"%s.jpg\"\n}\n", animal)
	return []file{
		{path: "data.json", mode: 0o644, data: []byte(data)},
		{path: "etc/os-release", mode: 0o644, data: []byte("NAME=" + animal + "\n")},
	}
}

// predefinedGroup has a user of the image with a supplemental group of the image.
func predefinedGroup() []file {
	const (
		user   = "default-user:x:1000:1000::/home/default-user:/bin/sh\n"
		groups = "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
	)
	return []file{
		{path: "etc/passwd", mode: 0o644, data: []byte(passwd + user)},
		{path: "etc/group", mode: 0o644, data: []byte(group + groups)},
	}
}
