package publish

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Unlocker is a Backend with volumes that are encrypted.
type Unlocker interface {
	// Unlock gives a volume its key and returns the directory which is its root, open. root is the root of
	// its file system, or that directory. A wrong key is volume.ErrKey, and changes nothing.
	Unlock(s volume.Spec, root *os.File, secret string) (*os.File, error)
}

func (p *Publisher) unlocker(v volume.Volume) (Unlocker, error) {
	unlocker, ok := p.backends[v.Backend].(Unlocker)
	if !ok {
		return nil, fmt.Errorf("%w: backend %s has no encrypted volumes", volume.ErrInvalid, v.Backend)
	}
	return unlocker, nil
}

// attachEncrypted is the end of attach for an encrypted volume: pods see no more of its file system than the
// directory that is encrypted. It closes the mount of the file system.
func (p *Publisher) attachEncrypted(v volume.Volume, fs *target.Tree, point *target.Point, u Use) error {
	content, err := p.contentOf(v, fs, point, u)
	if err != nil {
		return err
	}
	defer content.Close()

	if err := errors.Join(fs.Close(), point.Clear()); err != nil {
		return err
	}
	return content.Attach(point)
}

// contentOf unlocks a volume and returns a mount of its root directory. Before Linux 6.15 a directory can
// only be mounted by itself where its file system is mounted on some path: it is on the staging path for a
// moment, which stays so when the process is killed.
func (p *Publisher) contentOf(
	v volume.Volume,
	fs *target.Tree,
	point *target.Point,
	u Use,
) (*target.Tree, error) {
	unlocker, err := p.unlocker(v)
	if err != nil {
		return nil, err
	}

	root, err := fs.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()

	dir, err := unlocker.Unlock(v.Spec, root, u.Secret)
	if err != nil {
		return nil, err
	}
	defer dir.Close()

	if err := fs.Attach(point); err != nil {
		return nil, err
	}
	return target.Clone(dir, target.ParseOptions(u.Options))
}

// unlockStaged reports whether a volume is staged as a whole that has something on its staging path. One that
// is encrypted has its key then; what a killed process has left there may be the file system that it is in.
func (p *Publisher) unlockStaged(v volume.Volume, point *target.Point, s target.State, u Use) (bool, error) {
	if v.Encryption == "" {
		return true, nil
	}
	unlocker, err := p.unlocker(v)
	if err != nil {
		return false, err
	}

	root, err := point.Open()
	if err != nil {
		return false, err
	}
	defer root.Close()

	dir, err := unlocker.Unlock(v.Spec, root, u.Secret)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return shows(s, dir, v.Access)
}

// checkEncrypted returns the root directory of an encrypted volume if it is that; else it closes it.
func checkEncrypted(v volume.Volume, root *os.File) (*os.File, error) {
	_, encrypted, err := fscrypt.KeyOf(root)
	if err == nil && !encrypted {
		err = fmt.Errorf("%w: what is there of %s is not encrypted", volume.ErrNotStaged, v.ID)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// lock takes the key away from an encrypted volume that is about to be unstaged, also for those who have it
// mounted elsewhere. A pod that uses it would lose what it has not opened: that is volume.ErrInUse.
func (p *Publisher) lock(v volume.Volume, path string, st staging) error {
	if i := slices.IndexFunc(st.Targets, p.isMounted); i >= 0 {
		return fmt.Errorf("%w: %s is published on %s", volume.ErrInUse, v.ID, st.Targets[i])
	}

	root, err := p.openMounted(path)
	if errors.Is(err, errNotMounted) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()

	id, encrypted, err := fscrypt.KeyOf(root)
	if err != nil || !encrypted {
		return err
	}

	// What is still open can be read until it is closed: unmounting says that.
	_, err = fscrypt.Remove(root, id)
	return err
}
