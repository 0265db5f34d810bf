package nodeimage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// tree is a directory from which Docker builds an image: a Dockerfile, and below root the files that go into
// the image. The first error stays in err, and ends what follows.
type tree struct {
	dir string
	err error
}

// newTree makes the directory again.
func newTree(dir string) (*tree, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return &tree{dir: dir}, os.MkdirAll(filepath.Join(dir, "root"), 0o755)
}

// target is where a path of the image lies; its directory is made.
func (t *tree) target(path string) string {
	path = filepath.Join(t.dir, "root", path)
	if t.err == nil {
		t.err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	return path
}

func (t *tree) write(path string, data []byte, mode fs.FileMode) {
	path = t.target(path)
	if t.err == nil {
		t.err = os.WriteFile(path, data, mode)
	}
	if t.err == nil {
		// Whatever the umask is.
		t.err = os.Chmod(path, mode)
	}
}

// embed writes a file that is embedded in this package.
func (t *tree) embed(name, path string, mode fs.FileMode) {
	data, err := files.ReadFile(name)
	t.err = errors.Join(t.err, err)
	t.write(path, data, mode)
}

// embedBeside writes an embedded file beside root.
func (t *tree) embedBeside(name, path string) { t.embed(name, filepath.Join("..", path), 0o644) }

// link puts a file of the host there: by a hard link where both are on one file system.
func (t *tree) link(file, path string) {
	target := t.target(path)
	if t.err != nil {
		return
	}

	file, t.err = filepath.EvalSymlinks(file)
	if t.err != nil || os.Link(file, target) == nil {
		return
	}

	info, err := os.Stat(file)
	if err != nil {
		t.err = err
		return
	}

	data, err := os.ReadFile(file)
	t.err = err
	t.write(path, data, info.Mode().Perm())
}

// symlink puts a symbolic link there, in the place of what was.
func (t *tree) symlink(to, path string) {
	path = t.target(path)
	if t.err == nil {
		t.err = os.RemoveAll(path)
	}
	if t.err == nil {
		t.err = os.Symlink(to, path)
	}
}

// copyAll copies a directory. Scripts, which lie in directories called bin, may be executed, and nothing
// else: files of a module in Go's cache have lost their modes.
func (t *tree) copyAll(dir string) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}

		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}

		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}

		mode := fs.FileMode(0o644)
		if filepath.Base(filepath.Dir(path)) == "bin" {
			mode = 0o755
		}
		t.write(name, data, mode)
		return t.err
	})
	t.err = errors.Join(t.err, err)
}

// edit changes a file that is there.
func (t *tree) edit(path string, change func(string) (string, error)) {
	data, err := os.ReadFile(t.target(path))
	if t.err = errors.Join(t.err, err); t.err != nil {
		return
	}

	text, err := change(string(data))
	t.err = err
	t.write(path, []byte(text), 0o644)
}
