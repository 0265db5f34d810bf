package deb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/internal/testenv"
)

func sample() Package {
	return Package{
		Control: Control{
			Name:         "trivet-x",
			Version:      "1.2.3",
			Architecture: "amd64",
			Maintainer:   "Somebody <somebody@example.org>",
			Depends:      []string{"crun | runc", "iproute2"},
			Summary:      "a program",
			Description:  []string{strings.Repeat("It does x. ", 20), "And y."},
		},
		Files: []tarfile.File{
			{Path: "usr/bin/x", Mode: 0o755, Data: []byte("odd")},
			{Path: "etc/x.conf", Mode: 0o644, Data: []byte("a = 1\n")},
			{Path: "usr/bin/y", Link: "x"},
		},
		Configuration: []string{"etc/x.conf"},
		Scripts:       map[string]string{"postinst": "#!/bin/sh\nexit 0\n"},
		Time:          time.Unix(1_700_000_000, 0),
	}
}

// build writes a package to a file.
func build(t *testing.T, p Package) string {
	t.Helper()
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}

	return path
}

// dpkgDeb is what dpkg-deb prints.
func dpkgDeb(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(testenv.Program(t, "dpkg-deb", "dpkg"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb %q: %v: %s", args, err, out)
	}
	return string(out)
}

func TestDpkgReadsWhatIsWritten(t *testing.T) {
	deb := build(t, sample())
	fields := dpkgDeb(t, "--field", deb, "Package", "Version", "Architecture", "Depends", "Installed-Size")
	want := "Package: trivet-x\nVersion: 1.2.3\nArchitecture: amd64\n" +
		"Installed-Size: 6\nDepends: crun | runc, iproute2\n"
	if fields != want && !sameLines(fields, want) {
		t.Errorf("fields\n%swant\n%s", fields, want)
	}

	list := dpkgDeb(t, "--contents", deb)
	for _, want := range []string{
		"-rwxr-xr-x root/root",
		"2023-11-14",
		"./usr/bin/y -> x",
		"./etc/x.conf",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in the contents\n%s", want, list)
		}
	}

	dir := t.TempDir()
	dpkgDeb(t, "--raw-extract", deb, filepath.Join(dir, "x"))
	for file, want := range map[string]string{
		"usr/bin/x":        "odd",
		"DEBIAN/conffiles": "/etc/x.conf\n",
		"DEBIAN/postinst":  "#!/bin/sh\nexit 0\n",
	} {
		got, err := os.ReadFile(filepath.Join(dir, "x", file))
		if err != nil || string(got) != want {
			t.Errorf("%s has %q, %v, want %q", file, got, err, want)
		}
	}

	check := exec.Command("md5sum", "--check", "--strict", "DEBIAN/md5sums")
	check.Dir = filepath.Join(dir, "x")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sums: %v: %s", err, out)
	}
}

// sameLines compares texts whose lines may have another order.
func sameLines(a, b string) bool {
	lines := func(s string) map[string]bool {
		all := map[string]bool{}
		for line := range strings.Lines(s) {
			all[line] = true
		}
		return all
	}

	one, two := lines(a), lines(b)
	for line := range one {
		if !two[line] {
			return false
		}
	}
	return len(one) == len(two)
}

func TestEqualPackagesAreEqualToTheByte(t *testing.T) {
	first, err := os.ReadFile(build(t, sample()))
	if err != nil {
		t.Fatal(err)
	}

	second, err := os.ReadFile(build(t, sample()))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two packages of equal files differ: %v", err)
	}
}

func TestWhatDpkgWouldRefuseIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Package){
		"name":          func(p *Package) { p.Control.Name = "Trivet X" },
		"version":       func(p *Package) { p.Control.Version = "v1" },
		"line break":    func(p *Package) { p.Control.Summary = "a\nDepends: b" },
		"configuration": func(p *Package) { p.Configuration = []string{"etc/y.conf"} },
		"script":        func(p *Package) { p.Scripts = map[string]string{"install": ""} },
		"source":        func(p *Package) { p.Files = []tarfile.File{{Path: "x", Source: "/no/such"}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := sample()
			change(&p)
			if err := p.Write(&bytes.Buffer{}); err == nil {
				t.Error("no error")
			}
		})
	}
}
