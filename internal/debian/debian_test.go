package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDownloadsAreWhatAptDescribes(t *testing.T) {
	const text = "Reading package lists...\n" +
		"'http://deb.example.org/pool/e/e2fsprogs_1.47_arm64.deb' e2fsprogs_1.47_arm64.deb 6 SHA256:ab\n"
	got, err := parseURIs(text)
	if err != nil || len(got) != 1 || got[0] != (download{file: "e2fsprogs_1.47_arm64.deb", sha256: "ab"}) {
		t.Errorf("%+v, %v", got, err)
	}

	for name, line := range map[string]string{
		"no sum":    "'http://x/y.deb' y.deb 6",
		"weak sum":  "'http://x/y.deb' y.deb 6 MD5Sum:ab",
		"elsewhere": "'http://x/y.deb' ../../y.deb 6 SHA256:ab",
		"no name":   "'http://x/y.deb' y 6 SHA256:ab",
	} {
		if got, err := parseURIs(line + "\n"); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzURIs(f *testing.F) {
	f.Add("'http://x/y.deb' y.deb 6 SHA256:ab\n")
	f.Fuzz(func(t *testing.T, text string) {
		downloads, err := parseURIs(text)
		if err != nil {
			return
		}
		for _, d := range downloads {
			if filepath.Base(d.file) != d.file {
				t.Errorf("%q is a path", d.file)
			}
		}
	})
}

func TestLibrariesAreWhatProgramsDependOn(t *testing.T) {
	everything, host := For("amd64", ""), Host("amd64", "")
	for _, c := range []struct {
		line          string
		alone, onHost bool
	}{
		{"libuuid1", true, true},
		{"zlib1g", true, true},
		{"gcc-12-base", true, true},
		{"libc6", true, false},
		{"python3", false, false},
		{"libpython3.11-stdlib", false, false},
		{"libc6:i386", false, false},
		{"  Depends: libuuid1", false, false},
		{"<libc-dev>", false, false},
	} {
		if got := everything.isLibrary(c.line); got != c.alone {
			t.Errorf("%q is a library: %v", c.line, got)
		}
		if got := host.isLibrary(c.line); got != c.onHost {
			t.Errorf("%q is a library beside the host's: %v", c.line, got)
		}
	}
}

// tree has two packages: mkfs, whose copyright file is that of lib, and lib.
func tree(t *testing.T) *Tree {
	t.Helper()
	tree := &Tree{arch: "amd64"}
	for name, files := range map[string]map[string]string{
		"mkfs": {"sbin/mkfs.x": "#!", "etc/x.conf": "a", "etc/x.d/y": "b"},
		"lib":  {"usr/share/doc/lib/copyright": "mine"},
	} {
		p := Package{Name: name, dir: filepath.Join(t.TempDir(), name)}
		for path, text := range files {
			path = filepath.Join(p.dir, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tree.packages = append(tree.packages, p)
	}
	return tree
}

// packageOf is a package of a tree by its name.
func packageOf(t *testing.T, tree *Tree, name string) Package {
	t.Helper()
	for _, p := range tree.packages {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no package %s", name)
	return Package{}
}

func TestFilesKnowTheirPackages(t *testing.T) {
	tree := tree(t)
	files, err := tree.Below("etc")
	if err != nil || len(files) != 2 || files[0].Path != "etc/x.conf" || files[1].Path != "etc/x.d/y" {
		t.Fatalf("%+v, %v", files, err)
	}
	if owners := tree.Owners(files); len(owners) != 1 || owners[0].Name != "mkfs" {
		t.Errorf("owners %+v", owners)
	}
	if files, err := tree.Below("opt"); err == nil {
		t.Errorf("below opt: %+v", files)
	}
}

func TestACopyrightFileMayBeThatOfAnotherPackage(t *testing.T) {
	tree := tree(t)
	mkfs := packageOf(t, tree, "mkfs")
	if file, err := tree.Copyright(mkfs); err == nil {
		t.Errorf("%+v, though no package has it", file)
	}

	docs := filepath.Join(mkfs.dir, "usr/share/doc")
	if err := os.MkdirAll(docs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("lib", filepath.Join(docs, "mkfs")); err != nil {
		t.Fatal(err)
	}

	file, err := tree.Copyright(mkfs)
	if err != nil || file.Path != "usr/share/doc/mkfs/copyright" ||
		!strings.HasSuffix(file.Source, "/lib/usr/share/doc/lib/copyright") {
		t.Errorf("%+v, %v", file, err)
	}
}

func TestAProgramOutsideOfItsPackageIsNotTaken(t *testing.T) {
	tree := tree(t)
	mkfs := packageOf(t, tree, "mkfs")
	if err := os.Symlink("/bin/sh", filepath.Join(mkfs.dir, "sbin/mkfs.y")); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Programs(map[string]string{"sbin/mkfs.y": "mkfs.y"}); err == nil {
		t.Error("no error")
	}
}

func TestPackagesMayLieBehindALink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "packages"), link); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "packages", "root-x", "sbin/mkfs.x")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}

	m := Host("amd64", link)
	if err := m.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	tree := &Tree{packages: []Package{{Name: "mkfs", dir: filepath.Join(m.dir, "root-x")}}}
	if found, err := tree.find("mkfs.x"); err != nil || found != program {
		t.Errorf("the program is %s, %v, want %s", found, err, program)
	}
}

func TestAHostsProgramComesWithItsLoader(t *testing.T) {
	files, err := HostProgram("amd64", "env", "usr/bin/env")
	if err != nil {
		t.Skipf("the machine's env is not one for amd64 with its libraries in the usual place: %v", err)
	}

	paths := ""
	for _, f := range files {
		paths += f.Path + "\n"
	}
	if !strings.Contains(paths, "usr/bin/env\n") {
		t.Errorf("files\n%s", paths)
	}
}

func TestAnUnknownArchitectureIsNamed(t *testing.T) {
	_, err := For("mips", t.TempDir()).Unpack(t.Context(), "x")
	if err == nil || !strings.Contains(err.Error(), `"mips"`) {
		t.Errorf("error %v", err)
	}
}
