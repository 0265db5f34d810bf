package images

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// file is a file of a layer.
type file = tarfile.File

// maker makes the files of a layer.
type maker func(ctx context.Context, a *assembly) ([]file, error)

// layers are the makers by the names that the catalog has. Any layer "mark NAME" is one file.
func layers() map[string]maker {
	all := othersLayers()
	maps.Copy(all, ownLayers())
	maps.Copy(all, extensionLayers())
	return all
}

// extensionLayers are those of extensionImages.
func extensionLayers() map[string]maker {
	return map[string]maker{
		"etcd-3.6":      etcdPrograms("3.6"),
		"etcd-3.7":      etcdPrograms("3.7"),
		"etcd-operator": program("etcd-operator", "etcd-operator"),
		"etcd-writer":   program("etcd-writer", "etcd-writer"),
		"nft":           packaged(nft),
		"sidecar":       program("sidecar", "sidecar"),
	}
}

// othersLayers are the makers of what others deliver, and of what stands in its place.
func othersLayers() map[string]maker {
	return map[string]maker{
		"busybox":    busybox,
		"bash":       together(packaged(bash), fixed(file{Path: "usr/local/bin/sh", Link: "/bin/bash"})),
		"netcat":     packaged(netcat),
		"names":      together(program("names", "bin/dig"), fixed(file{Path: "bin/getent", Link: "dig"})),
		"wget":       program("wget", "bin/wget"),
		"alpine":     fixed(osRelease),
		"pause":      program("pause", "pause"),
		"coredns":    program("coredns", "coredns"),
		"demo1":      program("demo1", "bin/demo"),
		"demo2":      program("demo2", "bin/demo"),
		"etcd":       program("etcd", "usr/local/bin/etcd"),
		"nginx-1.27": nginx("1.27"),
		"nginx-1.28": nginx("1.28"),

		"metrics-server":         program("metrics-server", "metrics-server"),
		"sample-apiserver":       program("sample-apiserver", "sample-apiserver"),
		"sample-device-plugin":   program("sample-device-plugin", "sampledeviceplugin"),
		"regression-issue-74839": program("regression-issue-74839", "regression-issue-74839"),

		"agnhost":           together(agnhost, packaged(agnhostTools)),
		"registry of pause": registryOf("pause", pauseImage),
		"nonewprivs":        programWithMode("nonewprivs", "nnp", 0o4755),
		"kitten":            fixed(picture("kitten")...),
		"nautilus":          fixed(picture("nautilus")...),
		"perl":              packaged(perl),
		"ipcs":              packaged(ipcs),
		"dd":                packaged(dd),
		"iptables":          together(packaged(iptables), fixed(iptablesNames()...)),
		"apparmor-loader":   together(program("apparmor-loader", "usr/bin/loader"), packaged(apparmor)),
		"resource-consumer": together(
			program("resource-consumer", "consumer"),
			program("consume-cpu", "consume-cpu/consume-cpu"),
			packaged(stress),
		),

		"csi-attacher":        program("csi-attacher", "csi-attacher"),
		"csi-provisioner":     program("csi-provisioner", "csi-provisioner"),
		"csi-resizer":         program("csi-resizer", "csi-resizer"),
		"csi-snapshotter":     program("csi-snapshotter", "csi-snapshotter"),
		"snapshot-controller": program("snapshot-controller", "snapshot-controller"),
		"livenessprobe":       program("livenessprobe", "livenessprobe"),
		"hostpathplugin":      program("hostpath", "hostpathplugin"),

		"csi-node-driver-registrar": program("registrar", "csi-node-driver-registrar"),

		"control plane": together(program("controlplane", planeBinary), fixed(controlPlanePrograms...)),
		"proxy tools":   packaged(proxyTools),
		"file systems":  packaged(fileSystems),

		"etcd of the control plane": fixed(file{Path: "usr/local/bin/etcd", Link: "controlplane"}),

		"applets":          together(program("applets", "bin/pgrep"), fixed(applets...)),
		"webserver nginx":  webserver("usr/sbin/nginx"),
		"webserver httpd":  webserver("usr/bin/httpd-foreground"),
		"predefined-group": fixed(predefinedGroup...),
	}
}

// ownLayers are the makers of what this project delivers.
func ownLayers() map[string]maker {
	return map[string]maker{
		"trivet-csi":  program("trivet-csi", "usr/local/bin/trivet-csi"),
		"trivet-netd": together(program("trivet-netd", "trivet-netd"), program("trivet-cni", "trivet-cni")),
		"trivet-cri": together(
			program("trivet-cri", "usr/local/bin/trivet-cri"),
			program("trivet-monitor", "usr/local/bin/trivet-monitor"),
			deployed("cri/trivet-cri.service", "usr/share/trivet-cri/trivet-cri.service"),
			deployed("cri/cri.toml", "usr/share/trivet-cri/cri.toml"),
		),
		"trivet-node": together(
			program("trivet-node", "usr/local/bin/trivet-node"),
			deployed("node/trivet-node.service", "usr/share/trivet-node/trivet-node.service"),
		),
		"broken trivet-node": together(
			program("pause", "usr/local/bin/trivet-node"),
			deployed("node/trivet-node.service", "usr/share/trivet-node/trivet-node.service"),
		),
		"trivet-installer": program("trivet-installer", "usr/local/bin/trivet-installer"),
	}
}

// files returns the files of a layer by its name in the catalog.
func (a *assembly) files(ctx context.Context, layer string) ([]file, error) {
	if mark, ok := strings.CutPrefix(layer, "mark "); ok {
		return []file{{Path: mark, Mode: 0o644}}, nil
	}

	files, ok := a.makers[layer]
	if !ok {
		return nil, fmt.Errorf("no layer is called %q", layer)
	}

	return files(ctx, a)
}

// program is a program that is built, at a path.
func program(name, path string) maker { return programWithMode(name, path, 0o755) }

func programWithMode(name, path string, mode int64) maker {
	return func(ctx context.Context, a *assembly) ([]file, error) {
		source, err := a.inputs.program(ctx, name)
		return []file{{Path: path, Mode: mode, Source: source}}, err
	}
}

// deployed is a file below deploy, at a path.
func deployed(name, path string) maker {
	return func(_ context.Context, a *assembly) ([]file, error) {
		source := filepath.Join(a.inputs.builder.Source, "deploy", name)
		return []file{{Path: path, Mode: 0o644, Source: source}}, nil
	}
}

func packaged(p packages) maker {
	return func(ctx context.Context, a *assembly) ([]file, error) { return a.inputs.packaged(ctx, p) }
}

func fixed(files ...file) maker {
	return func(context.Context, *assembly) ([]file, error) { return files, nil }
}

// together are the files of several makers.
func together(makers ...maker) maker {
	return func(ctx context.Context, a *assembly) ([]file, error) {
		var all []file
		for _, maker := range makers {
			files, err := maker(ctx, a)
			if err != nil {
				return nil, err
			}
			all = append(all, files...)
		}
		return all, nil
	}
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n" +
		"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n" +
		"nonroot:x:65532:65532::/home/nonroot:/bin/false\n"
	group    = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnobody:x:65534:\nnonroot:x:65532:\n"
	nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
)

// certificates are those of the authorities that the host trusts.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// busybox is a small root: Debian's busybox with all its applets, the libraries that it links, users, and the
// CA certificates. The dynamic busybox is used, because a static glibc cannot be relied upon to resolve
// names.
func busybox(ctx context.Context, a *assembly) ([]file, error) {
	packaged, err := a.inputs.packaged(ctx, packages{
		names:    []string{"busybox"},
		programs: map[string]string{"bin/busybox": "busybox"},
	})
	if err != nil {
		return nil, err
	}

	files := append([]file{
		{Path: "tmp/", Mode: 0o1777},
		{Path: "root/", Mode: 0o700},
		{Path: "home/", Mode: 0o755},
		{Path: "var/tmp/", Mode: 0o1777},
		{Path: "etc/passwd", Mode: 0o644, Data: []byte(passwd)},
		{Path: "etc/group", Mode: 0o644, Data: []byte(group)},
		{Path: "etc/nsswitch.conf", Mode: 0o644, Data: []byte(nsswitch)},
	}, packaged...)

	applets, err := exec.CommandContext(ctx, packaged[0].Source, "--list").Output()
	if err != nil {
		return nil, err
	}

	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			files = append(files, file{Path: "bin/" + name, Mode: 0o755, Hard: "bin/busybox"})
		}
	}

	if _, err := os.Stat(certificates); err == nil {
		path := strings.TrimPrefix(certificates, "/")
		files = append(files, file{Path: path, Mode: 0o644, Source: certificates})
	}

	return files, nil
}
