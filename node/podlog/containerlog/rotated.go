package containerlog

import (
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// rotatedFormat is the suffix of rotated files: when that was.
const rotatedFormat = "20060102-150405"

// RotatedName returns the name of a log that is rotated now.
func RotatedName(path string, now time.Time) string {
	return path + "." + now.UTC().Format(rotatedFormat)
}

// RotatedAt returns when a log was rotated, by the name of the rotated file; the zero time if it has no such
// name.
func RotatedAt(name string) time.Time {
	name = strings.TrimSuffix(name, ".gz")
	at, err := time.Parse(rotatedFormat, name[strings.LastIndexByte(name, '.')+1:])
	if err != nil {
		return time.Time{}
	}
	return at
}

// Rotated lists the rotated files of a log, the oldest first: PATH.20060102-150405, some of them with .gz.
func Rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list rotated logs: %w", err)
	}

	// A file and its .gz, which may not be complete, are one.
	byTime := map[string]string{}
	for _, e := range entries {
		at, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}

		at = strings.TrimSuffix(at, ".gz")
		if _, err := time.Parse(rotatedFormat, at); err != nil {
			continue
		}
		if old, ok := byTime[at]; !ok || strings.HasSuffix(old, ".gz") {
			byTime[at] = filepath.Join(filepath.Dir(path), e.Name())
		}
	}

	return slices.Sorted(maps.Values(byTime)), nil
}

// unzipped reads a compressed file.
type unzipped struct {
	io.Reader
	file *os.File
}

func (u unzipped) Close() error { return u.file.Close() }

// open opens a rotated file.
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
	return unzipped{z, f}, nil
}
