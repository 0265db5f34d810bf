package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// checkHostPath makes sure that the path is what the volume's type says. DirectoryOrCreate and FileOrCreate
// make what does not exist.
func checkHostPath(src *v1.HostPathVolumeSource) error {
	kind := ptr.Deref(src.Type, v1.HostPathUnset)
	if kind == v1.HostPathUnset {
		return nil
	}

	word, known := words[kind]
	if !known {
		return fmt.Errorf("hostPath type %q is unknown", kind)
	}

	info, err := os.Stat(src.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && kind == v1.HostPathDirectoryOrCreate:
		return makeHostDir(src.Path)
	case errors.Is(err, fs.ErrNotExist) && kind == v1.HostPathFileOrCreate:
		return makeHostFile(src.Path)
	case err != nil:
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", src.Path, word, err)
	case !hasType(info.Mode(), kind):
		return fmt.Errorf("hostPath type check failed: %s is not a %s", src.Path, word)
	}

	return nil
}

// hasType reports whether a file is of the type.
func hasType(mode fs.FileMode, kind v1.HostPathType) bool {
	switch kind {
	case v1.HostPathDirectory, v1.HostPathDirectoryOrCreate:
		return mode.IsDir()
	case v1.HostPathFile, v1.HostPathFileOrCreate:
		return mode.IsRegular()
	case v1.HostPathSocket:
		return mode&fs.ModeSocket != 0
	case v1.HostPathCharDev:
		return mode&fs.ModeCharDevice != 0
	case v1.HostPathBlockDev:
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	}

	return false
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

// makeHostDir makes a directory, and those above it that do not exist.
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
