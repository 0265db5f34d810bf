package images

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// bash is static; a command that asks for sh without a path gets it, too. The applet sh of Debian's busybox
// takes variables with names such as 1-key or p-.q out of the environment; the real image's passes them on,
// and specs look for them. Others look for the words of the applet's errors: /bin/sh stays what it is.
var bash = packages{
	names:    []string{"bash-static"},
	programs: map[string]string{"bin/bash": "bash-static"},
}

// netcat knows UDP and -W, which the applet does not.
var netcat = packages{
	names:    []string{"netcat-openbsd"},
	programs: map[string]string{"bin/nc": "nc.openbsd"},
}

// agnhostTools are what agnhost's image has beside its program.
var agnhostTools = packages{
	names: []string{"iperf", "iproute2", "socat"},
	programs: map[string]string{
		"bin/ip":        "ip",
		"bin/ss":        "ss",
		"usr/bin/iperf": "iperf",
		"usr/bin/socat": "socat",
	},
}

// perl is without the modules of the package perl.
var perl = packages{
	names:    []string{"perl-base"},
	programs: map[string]string{"usr/bin/perl": "perl"},
	trees:    []string{"usr/lib/MULTIARCH/perl-base"},
}

// ipcs replaces nothing: busybox of Debian has no such applet.
var ipcs = packages{
	names:    []string{"util-linux"},
	programs: map[string]string{"usr/bin/ipcs": "ipcs"},
}

// dd can write past the page cache (oflag=nocache), which the applet cannot.
var dd = packages{
	names:    []string{"coreutils"},
	programs: map[string]string{"bin/dd": "dd"},
}

var stress = packages{
	names:    []string{"stress"},
	programs: map[string]string{"usr/bin/stress": "stress"},
}

var apparmor = packages{
	names:    []string{"apparmor"},
	programs: map[string]string{"sbin/apparmor_parser": "apparmor_parser"},
	trees:    []string{"etc/apparmor.d/abi", "etc/apparmor.d/abstractions", "etc/apparmor.d/tunables"},
}

var iptables = packages{
	names: []string{"conntrack", "iptables"},
	programs: map[string]string{
		"usr/sbin/conntrack":            "conntrack",
		"usr/sbin/xtables-legacy-multi": "xtables-legacy-multi",
		"usr/sbin/xtables-nft-multi":    "xtables-nft-multi",
	},
	trees: []string{"usr/lib/MULTIARCH/xtables"},
}

// iptablesNames are the names by which the two programs know what they are to do; those without a mode are
// nft's, as Debian has it.
func iptablesNames() []file {
	var files []file
	for mode, program := range map[string]string{
		"":        "xtables-nft-multi",
		"-nft":    "xtables-nft-multi",
		"-legacy": "xtables-legacy-multi",
	} {
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, verb := range []string{"", "-save", "-restore"} {
				files = append(files, file{Path: "usr/sbin/" + family + mode + verb, Link: program})
			}
		}
	}

	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// osRelease is what specs read in images that are made of Alpine Linux.
var osRelease = file{
	Path: "etc/os-release",
	Mode: 0o644,
	Data: []byte("NAME=\"Alpine Linux\"\nID=alpine\nVARIANT=\"a stand-in made by trivet-images\"\n"),
}

// applets replaces the applet sh in /bin, which specs of critest call by that path.
var applets = []file{
	{Path: "bin/ipcs", Link: "pgrep"},
	{Path: "bin/sh", Link: "pgrep"},
}

// agnhost has the program under its two names, the user that a test of supplemental groups looks for, and the
// files that its servers read.
func agnhost(ctx context.Context, a *assembly) ([]file, error) {
	const (
		user   = "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"
		groups = "user-defined-in-image:x:1000:\n" +
			"group-defined-in-image:x:50000:user-defined-in-image\n"
	)

	program, err := a.inputs.program(ctx, "agnhost")
	if err != nil {
		return nil, err
	}

	sources, err := a.inputs.kubernetes(ctx)
	if err != nil {
		return nil, err
	}

	curl, err := hosted("curl", "usr/bin/curl")
	if err != nil {
		return nil, err
	}

	porter := filepath.Join(sources, "test/images/agnhost/porter")
	return append([]file{
		{Path: "agnhost", Mode: 0o755, Source: program},
		{Path: "agnhost-2", Link: "agnhost"},
		{Path: "uploads/", Mode: 0o755},
		{Path: "home/user-defined-in-image/", Mode: 0o755},
		{Path: "localhost.crt", Mode: 0o644, Source: filepath.Join(porter, "localhost.crt")},
		{Path: "localhost.key", Mode: 0o644, Source: filepath.Join(porter, "localhost.key")},
		{Path: "etc/passwd", Mode: 0o644, Data: []byte(passwd + user)},
		{Path: "etc/group", Mode: 0o644, Data: []byte(group + groups)},
	}, curl...), nil
}

// registryOf has an image with the tag "testing" as agnhost's fake-registry-server wants to find it, which
// specs of private registries start: /var/registry/NAME with manifests and blobs, each in
// sha256/XX/DIGEST/data, and the digest of a tag in a file of the tag's name.
func registryOf(name string, image image) maker {
	return func(ctx context.Context, a *assembly) ([]file, error) {
		index, err := a.index(ctx, image)
		if err != nil {
			return nil, err
		}

		built, err := a.build(ctx, image)
		if err != nil {
			return nil, err
		}

		blobs, err := blobsOf(index, built)
		if err != nil {
			return nil, err
		}

		digest, err := index.Digest()
		if err != nil {
			return nil, err
		}

		root := "var/registry/" + name
		files := []file{
			{Path: root + "/manifests/testing", Mode: 0o644, Data: []byte(digest.String() + "\n")},
		}
		for _, b := range blobs {
			path := fmt.Sprintf("%s/%s/sha256/%s/%s/data", root, b.kind, b.digest.Hex[:2], b.digest.Hex)
			files = append(files, file{Path: path, Mode: 0o644, Data: b.data})
		}

		return files, nil
	}
}

// nginx is the demo's server under nginx's name, and the page that specs look for.
func nginx(version string) maker {
	const page = "<title>Welcome to nginx!</title>\n"
	return together(program("demo1", "usr/sbin/nginx"), fixed(
		file{Path: "usr/share/nginx/html/index.html", Mode: 0o644, Data: []byte(page)},
		file{Path: "etc/nginx/version", Mode: 0o644, Data: []byte(version + "\n")},
	))
}

func webserver(path string) maker {
	return together(fixed(file{Path: "var/run/", Mode: 0o755}), program("webserver", path))
}

// picture is what an image named after an animal serves.
func picture(animal string) []file {
	data := fmt.Sprintf("{\n\"image\": \"%s.jpg\"\n}\n", animal)
	return []file{{Path: "data.json", Mode: 0o644, Data: []byte(data)}}
}

// predefinedGroup has a user of the image with a supplemental group of the image.
var predefinedGroup = []file{
	{
		Path: "etc/passwd",
		Mode: 0o644,
		Data: []byte(passwd + "default-user:x:1000:1000::/home/default-user:/bin/sh\n"),
	},
	{
		Path: "etc/group",
		Mode: 0o644,
		Data: []byte(group + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"),
	},
}

// proxyTools are what kube-proxy calls beside iptables and conntrack.
var proxyTools = packages{
	names:    []string{"kmod", "nftables"},
	programs: map[string]string{"usr/sbin/nft": "nft", "usr/sbin/modprobe": "kmod"},
}

// planeBinary is all programs of the control plane, which are links to it.
const planeBinary = "usr/local/bin/controlplane"

var controlPlanePrograms = []file{
	{Path: "usr/local/bin/kube-apiserver", Link: "controlplane"},
	{Path: "usr/local/bin/kube-controller-manager", Link: "controlplane"},
	{Path: "usr/local/bin/kube-scheduler", Link: "controlplane"},
	{Path: "usr/local/bin/kube-proxy", Link: "controlplane"},
}

// fileSystems are the programs that trivet-csi calls.
var fileSystems = packages{
	names: []string{"btrfs-progs", "e2fsprogs", "xfsprogs"},
	programs: map[string]string{
		"usr/sbin/mkfs.btrfs": "mkfs.btrfs",
		"usr/sbin/mkfs.ext4":  "mke2fs",
		"usr/sbin/mkfs.xfs":   "mkfs.xfs",
		"usr/sbin/e2fsck":     "e2fsck",
		"usr/sbin/resize2fs":  "resize2fs",
	},
	trees: []string{"etc/mke2fs.conf"},
}

// nft is what the proxy's init container writes its rules with.
var nft = packages{
	names:    []string{"nftables"},
	programs: map[string]string{"usr/sbin/nft": "nft"},
}

// etcdPrograms are what the official image has, of one minor version.
func etcdPrograms(minor string) maker {
	return together(
		program("etcd-"+minor, "usr/local/bin/etcd"),
		program("etcdctl-"+minor, "usr/local/bin/etcdctl"),
		program("etcdutl-"+minor, "usr/local/bin/etcdutl"),
	)
}
