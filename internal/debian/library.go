package debian

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// HostProgram is a program of this machine with its libraries, at a path; nothing where there is none.
func HostProgram(arch, name, path string) ([]tarfile.File, error) {
	source, err := exec.LookPath(name)
	if err != nil {
		return nil, nil
	}

	libraries, err := (&Tree{arch: arch, host: true}).libraries(source)
	if err != nil {
		return nil, err
	}

	return append(libraries, tarfile.File{Path: path, Mode: 0o755, Source: source}), nil
}

// Libraries are the dynamic loader and the shared libraries that those of the files need that are programs or
// shared libraries themselves.
func (t *Tree) Libraries(files []tarfile.File) ([]tarfile.File, error) {
	all := map[string]tarfile.File{}
	for _, f := range files {
		if f.Source == "" || !isELF(f.Source) {
			continue
		}

		needed, err := t.libraries(f.Source)
		if err != nil {
			return nil, err
		}

		for _, lib := range needed {
			all[lib.Path] = lib
		}
	}

	return sorted(all), nil
}

func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()

	magic := make([]byte, len(elf.ELFMAG))
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == elf.ELFMAG
}

// libraries are the dynamic loader and the shared libraries that a program needs.
func (t *Tree) libraries(program string) ([]tarfile.File, error) {
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
			if found[name] = t.library(name); found[name] == "" {
				return nil, fmt.Errorf("%s needs %s, which is not in %v", program, name, t.libraryDirs())
			}

			queue = append(queue, found[name])
		}
	}

	files := map[string]tarfile.File{}
	for name, source := range found {
		if name != filepath.Base(loader) {
			files["lib/"+name] = tarfile.File{Path: "lib/" + name, Mode: 0o755, Source: source}
		}
	}
	if loader == "" {
		return sorted(files), nil
	}

	source := t.loader(loader)
	if source == "" {
		return nil, fmt.Errorf("%s needs %s, which no package has", program, loader)
	}

	path := strings.TrimPrefix(loader, "/")
	files[path] = tarfile.File{Path: path, Mode: 0o755, Source: source}
	return sorted(files), nil
}

// imports are the sonames that an ELF file needs, and its dynamic loader if it names one.
func imports(path string) (needed []string, loader string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()

	if s := f.Section(".interp"); s != nil {
		data, err := s.Data()
		if err != nil {
			return nil, "", fmt.Errorf("%s: section .interp: %w", path, err)
		}
		loader = strings.TrimRight(string(data), "\x00")
	}

	needed, err = f.ImportedLibraries()
	return needed, loader, err
}

// loader is the file that a program's interpreter is. Packages have it beside the C library, and a link to
// it.
func (t *Tree) loader(interpreter string) string {
	if t.host {
		return interpreter
	}
	return t.library(filepath.Base(interpreter))
}

func (t *Tree) libraryDirs() []string {
	triplet := multiarch[t.arch]
	return []string{"lib/" + triplet, "usr/lib/" + triplet, "lib64", "usr/lib64", "lib"}
}

// library is a library of the packages, else of the host where the tree is for it.
func (t *Tree) library(name string) string {
	var roots []string
	for _, p := range t.packages {
		roots = append(roots, p.dir)
	}
	if t.host {
		roots = append(roots, "/")
	}

	for _, root := range roots {
		for _, dir := range t.libraryDirs() {
			path := filepath.Join(root, dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}

	return ""
}
