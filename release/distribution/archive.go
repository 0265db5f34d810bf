package distribution

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/release/part"
)

// sumsFile has the SHA-256 of all files, as sha256sum --check reads it.
const sumsFile = "SHA256SUMS"

// writeArchive writes the sums, and one archive with everything, whose own sum is added to them afterwards.
func (w *writer) writeArchive(context.Context) error {
	if err := w.copyDeploy(); err != nil {
		return err
	}

	names, err := w.written()
	if err != nil {
		return err
	}

	sums, err := w.sums(names)
	if err != nil {
		return err
	}
	if err := w.write(sumsFile, 0o644, sums); err != nil {
		return err
	}

	name := "trivet_" + w.Version + ".tar.gz"
	if err := w.pack(name, append(names, sumsFile)); err != nil {
		return err
	}

	if sums, err = w.sums(append(names, name)); err != nil {
		return err
	}

	return w.write(sumsFile, 0o644, sums)
}

// copyDeploy copies what kubectl apply -k and the documents take: deploy, without what builds and tests.
func (w *writer) copyDeploy() error {
	if err := w.copyFile("LICENSE"); err != nil {
		return err
	}

	wanted := []string{"kind"}
	for _, p := range part.Parts {
		wanted = append(wanted, p.Deploy)
	}
	for _, dir := range wanted {
		if err := w.copyTree(path.Join("deploy", dir)); err != nil {
			return err
		}
	}

	return nil
}

func (w *writer) copyTree(dir string) error {
	top := filepath.Join(w.Source, filepath.FromSlash(dir))
	return filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "Dockerfile" {
			return err
		}

		name, err := filepath.Rel(w.Source, file)
		if err != nil {
			return err
		}
		return w.copyFile(filepath.ToSlash(name))
	})
}

func (w *writer) copyFile(name string) error {
	data, err := os.ReadFile(filepath.Join(w.Source, name))
	if err != nil {
		return err
	}
	return w.put(name, 0o644, data)
}

// written are the names of all files, sorted.
func (w *writer) written() (names []string, err error) {
	err = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		name, err := filepath.Rel(w.dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	slices.Sort(names)
	return names, err
}

func (w *writer) sums(names []string) ([]byte, error) {
	var out bytes.Buffer
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil {
			return nil, err
		}

		sum := sha256.Sum256(data)
		fmt.Fprintf(&out, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	return out.Bytes(), nil
}

// pack writes an archive of files, in a directory of the version's name.
func (w *writer) pack(name string, names []string) error {
	var files []tarfile.File
	for _, name := range names {
		source := filepath.Join(w.dir, name)
		info, err := os.Stat(source)
		if err != nil {
			return err
		}

		files = append(files, tarfile.File{Path: name, Mode: int64(info.Mode().Perm()), Source: source})
	}

	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	form := tarfile.Form{Prefix: "trivet-" + w.Version + "/", Time: w.Time, Owner: "root"}
	if err := tarfile.Write(compressor, form, files); err != nil {
		return err
	}
	if err := compressor.Close(); err != nil {
		return err
	}

	return w.write(name, 0o644, out.Bytes())
}
