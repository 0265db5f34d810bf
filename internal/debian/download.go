package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// download is the file of a package as a mirror has it.
type download struct {
	file   string
	sha256 string
}

// parseURIs reads what apt-get download --print-uris prints: lines 'URI' FILE SIZE SHA256:SUM.
func parseURIs(text string) ([]download, error) {
	var all []download
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "'") {
			continue
		}

		fields := strings.Fields(line)
		if len(fields) != 4 {
			return nil, fmt.Errorf("apt describes a package by %d words, want 4: %s", len(fields), line)
		}

		sum, ok := strings.CutPrefix(fields[3], "SHA256:")
		if !ok || filepath.Base(fields[1]) != fields[1] || !strings.HasSuffix(fields[1], ".deb") {
			return nil, fmt.Errorf("apt names no file with a SHA256: %s", line)
		}

		all = append(all, download{file: fields[1], sha256: sum})
	}
	return all, nil
}

// download has apt fetch the files that are not there yet, and compares all with their sums.
func (m *Mirror) download(ctx context.Context, names []string, downloads []download) error {
	missing := false
	for _, d := range downloads {
		path := filepath.Join(m.debs(), d.file)
		if sum, err := sum(path); err == nil && sum == d.sha256 {
			continue
		}

		// What a killed download has left.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}

		missing = true
	}
	if !missing {
		return nil
	}

	// apt leaves alone what is there.
	if err := m.apt(ctx, "apt-get", append([]string{"-q", "download"}, names...)...); err != nil {
		return err
	}

	for _, d := range downloads {
		got, err := sum(filepath.Join(m.debs(), d.file))
		if err != nil {
			return err
		}
		if got != d.sha256 {
			return fmt.Errorf("package %s has the SHA256 %s, the mirror's list %s", d.file, got, d.sha256)
		}
	}

	return nil
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()

	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}

	return hex.EncodeToString(h.Sum(nil)), nil
}

// unpack unpacks a package that was fetched. A directory that is there is whole.
func (m *Mirror) unpack(ctx context.Context, d download) (Package, error) {
	deb := filepath.Join(m.debs(), d.file)
	p, err := describe(ctx, deb)
	if err != nil {
		return Package{}, err
	}

	p.SHA256 = d.sha256
	p.dir = filepath.Join(m.dir, "root-"+d.sha256[:16])
	if _, err := os.Stat(p.dir); err == nil {
		return p, nil
	}

	fresh := p.dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return Package{}, err
	}
	if err := run(ctx, m.dir, "dpkg-deb", "--extract", deb, fresh); err != nil {
		return Package{}, err
	}

	return p, os.Rename(fresh, p.dir)
}

// describe reads the fields of a package that identify it.
func describe(ctx context.Context, deb string) (Package, error) {
	const format = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}"
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--show", "--showformat="+format, deb).Output()
	if err != nil {
		return Package{}, fmt.Errorf("describe package %s: %w", deb, err)
	}

	fields := strings.Split(string(out), "\t")
	if len(fields) != 5 {
		return Package{}, fmt.Errorf("package %s is described by %q", deb, out)
	}

	return Package{
		Name:          fields[0],
		Version:       fields[1],
		Architecture:  fields[2],
		Source:        fields[3],
		SourceVersion: fields[4],
	}, nil
}
