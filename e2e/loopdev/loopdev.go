// Package loopdev finds loop devices by the files that they are attached to, and detaches them.
package loopdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a loop device that is attached to a file.
type Device struct {
	Path string // /dev/loop0

	// Backing is the path of the file as the process saw it that attached the device: in its mount namespace,
	// and with " (deleted)" when the file has no name any more.
	Backing string

	file fileID
}

// fileID names a file on this host, whatever its path is.
type fileID struct{ device, inode uint64 }

// List returns all devices that are attached.
func List() ([]Device, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}

	var all []Device
	for _, f := range files {
		backing, err := os.ReadFile(f)
		if err != nil {
			// Detached meanwhile.
			continue
		}

		name := filepath.Base(filepath.Dir(filepath.Dir(f)))
		d := Device{Path: "/dev/" + name, Backing: strings.TrimSpace(string(backing))}
		if d.file, err = backingFile(d.Path); err != nil {
			continue
		}

		all = append(all, d)
	}

	return all, nil
}

func backingFile(path string) (fileID, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileID{}, err
	}
	defer f.Close()

	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return fileID{}, err
	}
	return fileID{info.Device, info.Inode}, nil
}

// OnFilesBelow returns the devices on files in a directory and below it, but not below skip: path of the
// device -> path of the file. Files are recognized by their inode: Backing is no help for one that was
// attached in another mount namespace. A directory that does not exist has none.
func OnFilesBelow(dir string, skip ...string) (map[string]string, error) {
	all, err := List()
	if err != nil || len(all) == 0 {
		return nil, err
	}

	files, err := filesBelow(dir, skip)
	if err != nil {
		return nil, err
	}

	found := map[string]string{}
	for _, d := range all {
		if path, ok := files[d.file]; ok {
			found[d.Path] = path
		}
	}

	return found, nil
}

func filesBelow(dir string, skip []string) (map[fileID]string, error) {
	files := map[fileID]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() && slices.Contains(skip, path):
			return filepath.SkipDir
		case !e.Type().IsRegular():
			return nil
		}

		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			files[fileID{st.Dev, st.Ino}] = path
		}

		return nil
	})

	return files, err
}

// Detach detaches a device from its file; while it is mounted, the kernel does so when that ends. One that is
// not attached is left as it is, and so is one that somebody else has attached to another file meanwhile.
func Detach(path, file string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return &os.PathError{Op: "stat", Path: file, Err: err}
	}

	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err == nil && (fileID{info.Device, info.Inode}) == (fileID{st.Dev, st.Ino}) {
		err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	}
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}
