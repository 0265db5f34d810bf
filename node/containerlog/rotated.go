package containerlog

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// Rotated lists the rotated files of a log, oldest first: PATH.20060102-150405, some of them with .gz.
func Rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list rotated logs: %w", err)
	}

	// a file and its half-written or finished .gz count once
	byTime := map[string]string{}
	for _, e := range entries {
		at, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}

		at = strings.TrimSuffix(at, ".gz")
		if _, err := time.Parse("20060102-150405", at); err != nil {
			continue
		}
		if old, ok := byTime[at]; !ok || strings.HasSuffix(old, ".gz") {
			byTime[at] = filepath.Join(filepath.Dir(path), e.Name())
		}
	}

	var out []string
	for _, name := range byTime {
		out = append(out, name)
	}

	slices.Sort(out)
	return out, nil
}

type reader struct {
	io.Reader
	file *os.File
}

func (r reader) Close() error { return r.file.Close() }

func open(name string) (io.ReadCloser, error) {
	f, err := boundedfile.Open(name, os.O_RDONLY)
	if err != nil || !strings.HasSuffix(name, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read rotated log %s: %w", name, err)
	}
	return reader{z, f}, nil
}
