package images

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// debian is what a layer has of Debian's packages.
type debian struct {
	packages []string

	// programs are the paths in the image, each with the name of the program in its package. The shared
	// libraries that they need come along: from the packages, else from the host.
	programs map[string]string

	// trees are directories of the packages, MULTIARCH for that of the architecture.
	trees []string
}

// packaged returns the files that d names, and the shared libraries that they link.
func (in *inputs) packaged(ctx context.Context, d debian) ([]file, error) {
	root, err := in.unpack(ctx, d.packages)
	if err != nil {
		return nil, err
	}

	var files []file
	for path, name := range d.programs {
		found, err := findProgram(root, name)
		if err != nil {
			return nil, err
		}

		files = append(files, file{path: path, mode: 0o755, source: found})
	}

	for _, tree := range d.trees {
		more, err := treeFiles(root, strings.ReplaceAll(tree, "MULTIARCH", multiarch[runtime.GOARCH]))
		if err != nil {
			return nil, err
		}

		files = append(files, more...)
	}

	libs := map[string]file{}
	for _, f := range files {
		// Plugins of a program, which it loads itself, are in trees.
		if f.link != "" || (f.mode&0o111 == 0 && !strings.HasSuffix(f.path, ".so")) {
			continue
		}

		needed, err := librariesOf(f, root)
		if err != nil {
			return nil, err
		}

		for _, lib := range needed {
			libs[lib.path] = lib
		}
	}

	for _, lib := range libs {
		files = append(files, lib)
	}

	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

// librariesOf are those of a program or plugin; none of a script.
func librariesOf(f file, root string) ([]file, error) {
	magic := make([]byte, len(elf.ELFMAG))
	source, err := os.Open(f.source)
	if err != nil {
		return nil, err
	}
	defer source.Close()

	if _, err := io.ReadFull(source, magic); err != nil || string(magic) != elf.ELFMAG {
		return nil, nil
	}

	return libraries(f.source, root)
}

// unpack downloads packages and the libraries that they depend on, and returns a directory in which all are
// unpacked over each other. They are not installed: busybox, for one, would take the place of busybox-static.
func (in *inputs) unpack(ctx context.Context, packages []string) (string, error) {
	key := strings.Join(packages, "+")
	if dir := in.built[key]; dir != "" {
		return dir, nil
	}

	dir := filepath.Join(in.dir, "deb-"+packages[0])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}

	if err := download(ctx, dir, packages); err != nil {
		// There may be no package lists yet, or old ones, that name a version which the mirror does not have
		// any more.
		again := command(ctx, dir, "apt-get", "-q", "update")
		if again == nil {
			again = download(ctx, dir, packages)
		}
		if again != nil {
			return "", errors.Join(err, again)
		}
	}

	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) == 0 {
		return "", errors.Join(err, fmt.Errorf("apt-get download left no package of %s", key))
	}

	for _, deb := range debs {
		if err := command(ctx, dir, "dpkg", "-x", deb, "root"); err != nil {
			return "", err
		}
	}

	in.built[key] = filepath.Join(dir, "root")
	return in.built[key], nil
}

// download downloads packages, and the libraries that they depend on but those of libc6: the host's loader
// works with the host's.
func download(ctx context.Context, dir string, packages []string) error {
	depends := exec.CommandContext(ctx, "apt-cache", append([]string{
		"depends", "--recurse", "--no-pre-depends", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances",
	}, packages...)...)

	out, err := depends.Output()
	if err != nil {
		return fmt.Errorf("dependencies of %v: %w", packages, err)
	}

	wanted := slices.Clone(packages)
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSuffix(line, "\n")
		library := strings.HasPrefix(name, "lib") && !strings.HasPrefix(name, "libc6") &&
			!strings.Contains(name, ":")
		if library && !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}

	return command(ctx, dir, "apt-get", append([]string{"-q", "download"}, wanted...)...)
}

// findProgram looks where packages have programs. Those of bin are in usr/bin since Debian 13.
func findProgram(root, name string) (string, error) {
	for _, dir := range []string{"bin", "usr/bin", "sbin", "usr/sbin"} {
		path, err := filepath.EvalSymlinks(filepath.Join(root, dir, name))
		if err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no package has a program %s", name)
}

// treeFiles are the files and links below a directory of root.
func treeFiles(root, tree string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(filepath.Join(root, tree), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}

		switch {
		case d.Type().IsRegular():
			files = append(files, file{path: name, mode: int64(info.Mode().Perm()), source: path})
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}

			files = append(files, file{path: name, link: target})
		}

		return nil
	})

	return files, err
}

// hosted is a program of the host with its libraries, nothing where there is none.
func hosted(name, path string) ([]file, error) {
	source, err := exec.LookPath(name)
	if err != nil {
		return nil, nil
	}

	libs, err := libraries(source, "")
	if err != nil {
		return nil, err
	}

	return append(libs, file{path: path, mode: 0o755, source: source}), nil
}

// libraries are the dynamic loader and the shared libraries that a program needs: those of packages that are
// unpacked in root, else the host's.
func libraries(program, root string) ([]file, error) {
	// By soname.
	found := map[string]string{}
	queue := []string{program}
	var loader string
	for len(queue) > 0 {
		needed, interpreter, err := imports(queue[0])
		if err != nil {
			return nil, err
		}

		queue = queue[1:]
		if loader == "" {
			loader = interpreter
		}

		for _, name := range needed {
			if found[name] != "" {
				continue
			}
			if found[name] = findLibrary(root, name); found[name] == "" {
				return nil, fmt.Errorf("%s needs %s, which is not in %v", program, name, libraryDirs())
			}

			queue = append(queue, found[name])
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

// imports are the sonames that an ELF file needs, and its dynamic loader if it names one.
func imports(path string) (needed []string, loader string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()

	if s := f.Section(".interp"); s != nil {
		data, _ := s.Data()
		loader = strings.TrimRight(string(data), "\x00")
	}

	needed, err = f.ImportedLibraries()
	return needed, loader, err
}

// multiarch are Debian's names of architectures.
var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

func libraryDirs() []string {
	triplet := multiarch[runtime.GOARCH]
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib"}
}

func findLibrary(root, name string) string {
	for _, from := range []string{root, ""} {
		for _, dir := range libraryDirs() {
			if path := filepath.Join(from, dir, name); fileExists(path) {
				return path
			}
		}
	}
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
