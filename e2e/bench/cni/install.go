package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// install copies the programs, as an installation does, and has the copies measured. The linker writes a
// program page by page, and the kernel then maps it page by page: a start takes a fifth longer than that of
// the same program, copied.
func (o *options) install(dir string) error {
	theirs, err := filepath.Glob(filepath.Join(o.upstream, "*"))
	if err != nil {
		return err
	}
	if len(theirs) == 0 {
		return errors.New("there are no plugins in " + o.upstream)
	}

	upstream := filepath.Join(dir, "upstream")
	for _, plugin := range theirs {
		if _, err := copyTo(upstream, plugin); err != nil {
			return err
		}
	}

	o.upstream = upstream
	if o.plugin, err = copyTo(filepath.Join(dir, "ours"), o.plugin); err != nil {
		return err
	}
	if o.before != "" {
		if o.before, err = copyTo(filepath.Join(dir, earlier), o.before); err != nil {
			return err
		}
	}
	if o.floor, err = copyTo(filepath.Join(dir, "floor"), o.floor); err != nil {
		return err
	}
	for _, name := range []string{floorPorts, floorDelete} {
		if err := os.Symlink(o.floor, filepath.Join(filepath.Dir(o.floor), name)); err != nil {
			return err
		}
	}
	return nil
}

// copyTo copies a program into a directory and returns where it is.
func copyTo(dir, program string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	from, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer from.Close()

	path := filepath.Join(dir, filepath.Base(program))
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return path, errors.Join(err, to.Close())
}
