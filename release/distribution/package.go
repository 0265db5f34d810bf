package distribution

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/release/deb"
	"github.com/trivet-node/trivet/release/maintainer"
	"github.com/trivet-node/trivet/release/part"
)

// maintainers are whom a package names.
const maintainers = "trivet maintainers <trivet@users.noreply.github.com>"

// writePackages writes a Debian package of each part for each architecture.
func (w *writer) writePackages(context.Context) error {
	for _, p := range part.Parts {
		for _, arch := range Architectures {
			built, err := w.debianPackage(p, arch)
			if err != nil {
				return fmt.Errorf("package %s for %s: %w", p.Name, arch, err)
			}

			var file bytes.Buffer
			if err := built.Write(&file); err != nil {
				return err
			}

			name := fmt.Sprintf("packages/%s_%s_%s.deb", p.Name, w.debianVersion(), arch)
			if err := w.write(name, 0o644, file.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// debianVersion is the version as dpkg compares it: 1.2.3~rc.1 comes before 1.2.3.
func (w *writer) debianVersion() string {
	return strings.ReplaceAll(strings.TrimPrefix(w.Version, "v"), "-", "~")
}

func (w *writer) debianPackage(p part.Part, arch string) (deb.Package, error) {
	documents, err := w.documents(p)
	if err != nil {
		return deb.Package{}, err
	}

	built := deb.Package{
		Control: deb.Control{
			Name:         p.Name,
			Version:      w.debianVersion(),
			Architecture: arch,
			Maintainer:   maintainers,
			Homepage:     homepage,
			Section:      "admin",
			Depends:      slices.Concat([]string{"init-system-helpers (>= 1.54~)"}, p.Package.Depends),
			Recommends:   p.Package.Recommends,
			Suggests:     p.Package.Suggests,
			Summary:      p.Package.Summary,
			Description:  p.Package.Description,
		},
		Files:   documents,
		Scripts: maintainer.Scripts(p),
		Time:    w.Time,
	}

	for _, program := range p.Programs {
		source := w.program(arch, program.Name)
		built.Files = append(built.Files, tarfile.File{Path: program.Installed, Mode: 0o755, Source: source})
	}

	built.Files = append(built.Files, tarfile.File{
		Path:   "lib/systemd/system/" + p.Service.Unit,
		Mode:   0o644,
		Source: w.deployed(p, p.Service.Unit),
	})

	for _, c := range p.Configuration {
		source := w.deployed(p, c.Source)
		built.Files = append(built.Files, tarfile.File{Path: c.Installed, Mode: 0o644, Source: source})
		built.Configuration = append(built.Configuration, c.Installed)
	}

	return built, nil
}

// copyright is in Debian's machine-readable form. YEAR stands for that of the version.
const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: trivet
Source: ` + homepage + `

Files: *
Copyright: YEAR the trivet authors
License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
 .
 The licenses of what is linked into the programs are in third-party-licenses.gz
 beside this file.
`

// overrides are what lintian is told about programs of Go: they link everything statically, on purpose; what
// they can do is said by --help and the documents.
const overrides = `statically-linked-binary
no-manual-page
hardening-no-pie
initial-upload-closes-no-bugs
`

// manualOverrides are for services that the administrator starts: deb-systemd-invoke would start one that is
// enabled, and stop what it conflicts with.
const manualOverrides = "maintainer-script-calls-systemctl\n"

// documents are the files of a package that Debian's policy wants, and its README.
func (w *writer) documents(p part.Part) ([]tarfile.File, error) {
	changelog := fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * See %s/commits/%s\n\n -- %s  %s\n",
		p.Name, w.debianVersion(), homepage, w.Revision, maintainers, w.Time.UTC().Format(time.RFC1123Z))

	history, err := compressed([]byte(changelog))
	if err != nil {
		return nil, err
	}

	licenses, err := compressed(w.licenses)
	if err != nil {
		return nil, err
	}

	docs := path.Join("usr/share/doc", p.Name)
	notice := strings.ReplaceAll(copyright, "YEAR", w.Time.UTC().Format("2006"))
	tags := overrides
	if p.Service.Manual {
		tags += manualOverrides
	}
	overridden := strings.ReplaceAll("\n"+strings.TrimSpace(tags), "\n", "\n"+p.Name+": ")[1:] + "\n"
	return []tarfile.File{
		{Path: path.Join(docs, "README.md"), Mode: 0o644, Source: w.deployed(p, "README.md")},
		{Path: path.Join(docs, "copyright"), Mode: 0o644, Data: []byte(notice)},
		{Path: path.Join(docs, "changelog.gz"), Mode: 0o644, Data: history},
		{Path: path.Join(docs, "third-party-licenses.gz"), Mode: 0o644, Data: licenses},
		{Path: path.Join("usr/share/lintian/overrides", p.Name), Mode: 0o644, Data: []byte(overridden)},
	}, nil
}

// compressed is data as gzip -9n writes it: without a name and a time.
func compressed(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}

	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}

	return out.Bytes(), nil
}
