package config

import (
	"fmt"
	"io"
	"os"
)

// maxFile bounds a configuration file; that of a real node has a few KiB.
const maxFile = 1 << 20

// readFile reads a configuration file, which may be a link or a pipe.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	defer f.Close()

	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("kubelet configuration %s: more than %d bytes", path, maxFile)
	}
	return data, nil
}
