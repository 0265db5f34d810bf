package debian

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// Package is a package that was unpacked.
type Package struct {
	Name         string
	Version      string
	Architecture string

	// Source and SourceVersion are of the source package that it is built from.
	Source        string
	SourceVersion string

	// SHA256 of the package's file, in hexadecimal.
	SHA256 string

	dir string
}

// Tree is what some packages have in common: their files.
type Tree struct {
	arch     string
	host     bool
	packages []Package
}

// Programs are programs by their paths in an image, each with the name that it has in its package, and with
// the dynamic loader and the libraries that they need. They are sorted by path.
func (t *Tree) Programs(programs map[string]string) ([]tarfile.File, error) {
	files := map[string]tarfile.File{}
	for path, name := range programs {
		found, err := t.find(name)
		if err != nil {
			return nil, err
		}

		files[path] = tarfile.File{Path: path, Mode: 0o755, Source: found}
		libraries, err := t.libraries(found)
		if err != nil {
			return nil, err
		}

		for _, lib := range libraries {
			files[lib.Path] = lib
		}
	}

	return sorted(files), nil
}

// find looks where packages have programs. Those of bin are in usr/bin since Debian 13.
func (t *Tree) find(name string) (string, error) {
	for _, p := range t.packages {
		for _, dir := range []string{"bin", "usr/bin", "sbin", "usr/sbin"} {
			path, err := filepath.EvalSymlinks(filepath.Join(p.dir, dir, name))
			if err == nil && strings.HasPrefix(path, p.dir+"/") {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("no package has a program %s", name)
}

// Below are the files and links below a directory of the packages, in which MULTIARCH stands for the
// directory of the architecture. They are sorted by path.
func (t *Tree) Below(dir string) ([]tarfile.File, error) {
	dir = strings.ReplaceAll(dir, "MULTIARCH", multiarch[t.arch])
	files := map[string]tarfile.File{}
	for _, p := range t.packages {
		top := filepath.Join(p.dir, dir)
		if _, err := os.Lstat(top); err != nil {
			continue
		}

		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}

			file, err := fileOf(p.dir, path, d)
			files[file.Path] = file
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no package has files below %s", dir)
	}
	return sorted(files), nil
}

// fileOf is a file or link at a path below root.
func fileOf(root, path string, d fs.DirEntry) (tarfile.File, error) {
	name, err := filepath.Rel(root, path)
	if err != nil {
		return tarfile.File{}, err
	}

	switch d.Type() {
	case 0:
		info, err := d.Info()
		if err != nil {
			return tarfile.File{}, err
		}
		return tarfile.File{Path: name, Mode: int64(info.Mode().Perm()), Source: path}, nil

	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		return tarfile.File{Path: name, Link: target}, err
	}

	return tarfile.File{}, fmt.Errorf("%s is neither a file nor a link", path)
}

// Owners are the packages that the files are from, sorted by name.
func (t *Tree) Owners(files []tarfile.File) []Package {
	var owners []Package
	for _, p := range t.packages {
		ofPackage := func(f tarfile.File) bool { return strings.HasPrefix(f.Source, p.dir+"/") }
		if slices.ContainsFunc(files, ofPackage) {
			owners = append(owners, p)
		}
	}
	slices.SortFunc(owners, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return owners
}

// Copyright is the copyright file of a package, which has to go where its files go (Debian Policy 12.5). The
// directory it is in may be a link to that of a package of the same source.
func (t *Tree) Copyright(owner Package) (tarfile.File, error) {
	docs := filepath.Join("usr/share/doc", owner.Name)
	names := []string{owner.Name}
	if target, err := os.Readlink(filepath.Join(owner.dir, docs)); err == nil {
		names = append(names, filepath.Base(target))
	}

	for _, name := range names {
		for _, p := range t.packages {
			path := filepath.Join(p.dir, "usr/share/doc", name, "copyright")
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
				return tarfile.File{Path: filepath.Join(docs, "copyright"), Mode: 0o644, Source: path}, nil
			}
		}
	}

	return tarfile.File{}, fmt.Errorf("package %s: none of the packages has its copyright file", owner.Name)
}

func sorted(files map[string]tarfile.File) []tarfile.File {
	var out []tarfile.File
	for _, f := range files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b tarfile.File) int { return strings.Compare(a.Path, b.Path) })
	return out
}
