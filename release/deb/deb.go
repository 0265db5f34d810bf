// Package deb writes Debian binary packages (deb(5)): control data, maintainer scripts, configuration files
// and the files of a program, in an archive that equal inputs make equal to the byte.
package deb

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// Package is a binary package.
type Package struct {
	Control Control

	// Files are installed at their paths, which are relative to the root. They are not directories.
	Files []tarfile.File

	// Configuration are the paths of those of Files that belong to the administrator (deb-conffiles(5)).
	Configuration []string

	// Scripts are the maintainer scripts by their names: preinst, postinst, prerm, postrm.
	Scripts map[string]string

	// Time is when the package was made.
	Time time.Time
}

// Write writes the package.
func (p Package) Write(w io.Writer) error {
	files := slices.Clone(p.Files)
	slices.SortFunc(files, func(a, b tarfile.File) int { return strings.Compare(a.Path, b.Path) })

	// What is read is what is summed and written.
	for i, f := range files {
		if f.Source == "" {
			continue
		}

		data, err := os.ReadFile(f.Source)
		if err != nil {
			return err
		}

		files[i].Data, files[i].Source = data, ""
	}

	description, err := p.describe(files)
	if err != nil {
		return err
	}

	control, err := p.pack(description)
	if err != nil {
		return err
	}

	content, err := p.pack(files)
	if err != nil {
		return err
	}

	return writeArchive(w, p.Time, []member{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", control},
		{"data.tar.gz", content},
	})
}

// describe makes the files of the control archive.
func (p Package) describe(files []tarfile.File) ([]tarfile.File, error) {
	text, err := p.Control.text(installedSize(files))
	if err != nil {
		return nil, fmt.Errorf("package %s: %w", p.Control.Name, err)
	}

	description := []tarfile.File{
		{Path: "control", Mode: 0o644, Data: []byte(text)},
		{Path: "md5sums", Mode: 0o644, Data: sums(files)},
	}

	var configuration strings.Builder
	for _, path := range p.Configuration {
		if !slices.ContainsFunc(files, func(f tarfile.File) bool { return f.Path == path }) {
			return nil, fmt.Errorf("package %s: no file is the configuration file %s", p.Control.Name, path)
		}
		fmt.Fprintf(&configuration, "/%s\n", path)
	}
	if configuration.Len() > 0 {
		description = append(description,
			tarfile.File{Path: "conffiles", Mode: 0o644, Data: []byte(configuration.String())})
	}

	for name, script := range p.Scripts {
		if !slices.Contains([]string{"preinst", "postinst", "prerm", "postrm"}, name) {
			return nil, fmt.Errorf("package %s: %s is not the name of a script", p.Control.Name, name)
		}
		description = append(description, tarfile.File{Path: name, Mode: 0o755, Data: []byte(script)})
	}

	slices.SortFunc(description, func(a, b tarfile.File) int { return strings.Compare(a.Path, b.Path) })
	return description, nil
}

// pack makes a compressed archive as dpkg has it.
func (p Package) pack(files []tarfile.File) ([]byte, error) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}

	form := tarfile.Form{Prefix: "./", Time: p.Time, Owner: "root"}
	if err := tarfile.Write(w, form, files); err != nil {
		return nil, err
	}

	if err := w.Close(); err != nil {
		return nil, err
	}

	return packed.Bytes(), nil
}

// installedSize is in KiB, with one for each directory and link (deb-substvars(5)).
func installedSize(files []tarfile.File) int {
	size := 0
	dirs := map[string]bool{}
	for _, f := range files {
		size += max(1, (len(f.Data)+1023)/1024)
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	return size + len(dirs)
}

// sums is the content of md5sums (deb-md5sums(5)), by which accidents are found.
func sums(files []tarfile.File) []byte {
	var out bytes.Buffer
	for _, f := range files {
		if f.Link != "" {
			continue
		}

		sum := md5.Sum(f.Data)
		fmt.Fprintf(&out, "%s  %s\n", hex.EncodeToString(sum[:]), f.Path)
	}
	return out.Bytes()
}
