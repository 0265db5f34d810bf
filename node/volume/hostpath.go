package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"
)

// checkHostPath makes sure that the path is what the volume's type says; DirectoryOrCreate and FileOrCreate
// make it.
func checkHostPath(src *v1.HostPathVolumeSource) error {
	kind := v1.HostPathUnset
	if src.Type != nil {
		kind = *src.Type
	}
	if kind == v1.HostPathUnset {
		return nil
	}

	info, err := os.Stat(src.Path)
	if errors.Is(err, fs.ErrNotExist) {
		switch kind {
		case v1.HostPathDirectoryOrCreate:
			return makeHostDir(src.Path)
		case v1.HostPathFileOrCreate:
			return makeHostFile(src.Path)
		}
	}

	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", src.Path, words[kind], err)
	}

	mode := info.Mode()
	ok := false
	switch kind {
	case v1.HostPathDirectory, v1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case v1.HostPathFile, v1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case v1.HostPathSocket:
		ok = mode&fs.ModeSocket != 0
	case v1.HostPathCharDev:
		ok = mode&fs.ModeCharDevice != 0
	case v1.HostPathBlockDev:
		ok = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	default:
		return fmt.Errorf("hostPath type %q is unknown", kind)
	}

	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", src.Path, words[kind])
	}

	return nil
}

// words are kubelet's names of the types in its error, which users and tests search for.
var words = map[v1.HostPathType]string{
	v1.HostPathDirectory:         "directory",
	v1.HostPathDirectoryOrCreate: "directory",
	v1.HostPathFile:              "file",
	v1.HostPathFileOrCreate:      "file",
	v1.HostPathSocket:            "socket file",
	v1.HostPathCharDev:           "character device",
	v1.HostPathBlockDev:          "block device",
}

func makeHostDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("hostPath DirectoryOrCreate: %w", err)
	}
	return nil
}

// makeHostFile makes an empty file; its directory must exist (as the API documents).
func makeHostFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hostPath FileOrCreate: %w", err)
	}
	return f.Close()
}
