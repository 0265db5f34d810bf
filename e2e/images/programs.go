package images

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// programs are files on the host by name.
type programs map[string]string

// programs builds what the images run.
func (b *Builder) programs(ctx context.Context, dir string) (programs, error) {
	conformance := filepath.Join(b.Source, "e2e", "conformance")
	controlPlane := filepath.Join(b.Source, "e2e", "controlplane")
	builds := []struct{ name, module, pkg, flags string }{
		{"pause", b.Source, "./e2e/images/pause", ""},
		{"names", b.Source, "./e2e/images/names", ""},
		{"wget", b.Source, "./e2e/images/wget", ""},
		{"applets", b.Source, "./e2e/images/applets", ""},
		{"webserver", b.Source, "./e2e/images/webserver", ""},
		{"demo1", b.Source, "./e2e/images/demo", "-X main.version=1"},
		{"demo2", b.Source, "./e2e/images/demo", "-X main.version=2"},
		{"agnhost", conformance, "k8s.io/kubernetes/test/images/agnhost", ""},
		{"nonewprivs", conformance, "k8s.io/kubernetes/test/images/nonewprivs", ""},
		{"sample-apiserver", conformance, "k8s.io/sample-apiserver", ""},
		{"etcd", controlPlane, "go.etcd.io/etcd/server/v3", ""},
	}

	p := programs{"coredns": b.CoreDNS, "metrics-server": b.MetricsServer}
	for _, x := range builds {
		b.Say("build %s", x.name)
		p[x.name] = filepath.Join(dir, x.name)
		err := command(ctx, x.module, "go", "build", "-trimpath", "-buildvcs=false", "-tags=",
			"-ldflags", "-s -w -buildid= "+x.flags, "-o", p[x.name], x.pkg)
		if err != nil {
			return nil, err
		}
	}

	list := exec.CommandContext(ctx, "go", "-C", conformance,
		"list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	source, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("find the sources of k8s.io/kubernetes: %w", err)
	}

	for _, f := range []string{"localhost.crt", "localhost.key"} {
		p[f] = filepath.Join(strings.TrimSpace(string(source)), "test/images/agnhost/porter", f)
	}

	return p, nil
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n" +
		"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n" +
		"nonroot:x:65532:65532::/home/nonroot:/bin/false\n"
	group = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnobody:x:65534:\nnonroot:x:65532:\n"
)

// certificates are those of the authorities that the host trusts.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// busyboxFiles is a small root: Debian's busybox with all its applets, the libraries that it links, users,
// and the CA certificates. The dynamic busybox is used, because a static glibc cannot be relied upon to
// resolve names.
func busyboxFiles(ctx context.Context, work string) ([]file, error) {
	bin, err := download(ctx, work, "busybox", "busybox")
	if err != nil {
		return nil, err
	}

	applets, err := exec.CommandContext(ctx, bin, "--list").Output()
	if err != nil {
		return nil, err
	}

	const nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
	files := []file{
		{path: "tmp/", mode: 0o1777},
		{path: "root/", mode: 0o700},
		{path: "home/", mode: 0o755},
		{path: "var/tmp/", mode: 0o1777},
		{path: "etc/passwd", mode: 0o644, data: []byte(passwd)},
		{path: "etc/group", mode: 0o644, data: []byte(group)},
		{path: "etc/nsswitch.conf", mode: 0o644, data: []byte(nsswitch)},
		{path: "bin/busybox", mode: 0o755, source: bin},
	}

	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			files = append(files, file{path: "bin/" + a, mode: 0o755, hard: "bin/busybox"})
		}
	}

	libs, err := libraries(bin)
	if err != nil {
		return nil, err
	}

	files = append(files, libs...)
	if fileExists(certificates) {
		path := strings.TrimPrefix(certificates, "/")
		files = append(files, file{path: path, mode: 0o644, source: certificates})
	}

	return files, nil
}

// bashFiles is Debian's static bash; a command that asks for sh without a path gets it, too. The applet sh of
// Debian's busybox takes variables with names such as 1-key or p-.q out of the environment; the real image's
// passes them on, and specs look for them. Others look for the words of the applet's errors: /bin/sh stays
// what it is.
func bashFiles(ctx context.Context, work string) ([]file, error) {
	bash, err := download(ctx, work, "bash-static", "bash-static")
	if err != nil {
		return nil, err
	}
	return []file{
		{path: "bin/bash", mode: 0o755, source: bash},
		{path: "usr/local/bin/sh", mode: 0o777, link: "/bin/bash"},
	}, nil
}

// netcatFiles is a netcat that knows UDP, which the applet does not.
func netcatFiles(ctx context.Context, work string) ([]file, error) {
	netcat, err := download(ctx, work, "netcat-openbsd", "nc.openbsd")
	if err != nil {
		return nil, err
	}
	libs, err := libraries(netcat)
	if err != nil {
		return nil, err
	}
	return append(libs, file{path: "bin/nc", mode: 0o755, source: netcat}), nil
}

// download unpacks a Debian package and returns the path of a program in it. The package is not installed:
// busybox would take the place of busybox-static.
func download(ctx context.Context, work, name, program string) (string, error) {
	dir := filepath.Join(work, "deb-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}

	if err := command(ctx, dir, "apt-get", "-q", "download", name); err != nil {
		// There may be no package lists yet, or old ones, that name a version which the mirror does not have
		// any more.
		again := command(ctx, dir, "apt-get", "-q", "update")
		if again == nil {
			again = command(ctx, dir, "apt-get", "-q", "download", name)
		}
		if again != nil {
			return "", errors.Join(err, again)
		}
	}

	debs, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return "", errors.Join(err, fmt.Errorf("apt-get download %s left %v", name, debs))
	}
	if err := command(ctx, dir, "dpkg", "-x", debs[0], "root"); err != nil {
		return "", err
	}

	// It is in usr/bin since Debian 13.
	for _, bin := range []string{"bin", "usr/bin"} {
		if path := filepath.Join(dir, "root", bin, program); fileExists(path) {
			return path, nil
		}
	}

	return "", fmt.Errorf("package %s has no program %s", name, program)
}

// curlFiles is the host's curl with its libraries, if there is one.
func curlFiles() []file {
	path, err := exec.LookPath("curl")
	if err != nil {
		return nil
	}
	libs, err := libraries(path)
	if err != nil {
		return nil
	}
	return append(libs, file{path: "usr/bin/curl", mode: 0o755, source: path})
}

// libraries are the dynamic loader and the shared libraries that a program of the host needs, each at its
// path.
func libraries(program string) ([]file, error) {
	// By soname.
	found := map[string]string{}
	queue := []string{program}
	var loader string
	for len(queue) > 0 {
		f, err := elf.Open(queue[0])
		if err != nil {
			return nil, err
		}

		queue = queue[1:]
		if s := f.Section(".interp"); s != nil && loader == "" {
			data, _ := s.Data()
			loader = strings.TrimRight(string(data), "\x00")
		}

		needed, err := f.ImportedLibraries()
		f.Close()
		if err != nil {
			return nil, err
		}

		for _, n := range needed {
			if found[n] != "" {
				continue
			}
			if found[n] = findLibrary(n); found[n] == "" {
				return nil, fmt.Errorf("%s needs %s, which is not in %v", program, n, libraryDirs)
			}

			queue = append(queue, found[n])
		}
	}

	out := []file{}
	if loader != "" {
		out = append(out, file{path: strings.TrimPrefix(loader, "/"), mode: 0o755, source: loader})
	}

	for name, source := range found {
		if name != filepath.Base(loader) {
			out = append(out, file{path: "lib/" + name, mode: 0o755, source: source})
		}
	}

	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu",
	"/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib",
}

func findLibrary(name string) string {
	for _, d := range libraryDirs {
		if p := filepath.Join(d, name); fileExists(p) {
			return p
		}
	}
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
