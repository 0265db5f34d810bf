package publish

import (
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Unlocker is a Backend with volumes that are encrypted.
type Unlocker interface {
	// Unlock gives a volume its key and returns the directory which is its root, open. root is the root of
	// its file system, or that directory. A wrong key is volume.ErrKey, and changes nothing.
	Unlock(s volume.Spec, root *os.File, secret string) (*os.File, error)

	// Lock takes the key away from the volume that root is of, as with Unlock; what is open can be read until
	// it is closed. Where there is no key is success.
	Lock(root *os.File) error
}

// unlocking is how an encrypted volume gets onto its staging path: pods see no more of its file system than
// the directory that is encrypted.
type unlocking struct {
	unlocker Unlocker
	volume   volume.Volume
	use      Use
}

func newUnlocking(b Backend, v volume.Volume, u Use) (unlocking, error) {
	unlocker, ok := b.(Unlocker)
	if !ok {
		err := fmt.Errorf("%w: backend %s has no encrypted volumes", volume.ErrInvalid, v.Backend)
		return unlocking{}, err
	}
	return unlocking{unlocker, v, u}, nil
}

// attach puts the volume on a point. It closes the mount of the file system that the volume is in.
func (n unlocking) attach(fs *target.Tree, point *target.Point) error {
	content, err := n.contentOf(fs, point)
	if err != nil {
		return err
	}
	defer content.Close()

	if err := errors.Join(fs.Close(), point.Clear()); err != nil {
		return err
	}
	return content.Attach(point)
}

// contentOf unlocks the volume and returns a mount of its root directory. Before Linux 6.15 a directory can
// only be mounted by itself where its file system is mounted on some path: it is on the staging path for a
// moment, which stays so when the process is killed.
func (n unlocking) contentOf(fs *target.Tree, point *target.Point) (*target.Tree, error) {
	root, err := fs.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()

	dir, err := n.unlocker.Unlock(n.volume.Spec, root, n.use.Secret)
	if err != nil {
		return nil, err
	}
	defer dir.Close()

	if err := fs.Attach(point); err != nil {
		return nil, err
	}
	return target.Clone(dir, target.ParseOptions(n.use.Options))
}

// isWhole reports whether what is on a staging path is the volume. One that is encrypted has its key then;
// what a killed process has left there may be the file system that it is in.
func isWhole(b Backend, v volume.Volume, point *target.Point, state target.State, u Use) (bool, error) {
	if v.Encryption == "" {
		return true, nil
	}
	n, err := newUnlocking(b, v, u)
	if err != nil {
		return false, err
	}

	root, err := point.Open()
	if err != nil {
		return false, err
	}
	defer root.Close()

	dir, err := n.unlocker.Unlock(v.Spec, root, u.Secret)
	if err != nil {
		return false, fmt.Errorf("stage volume %s: %w", v.ID, err)
	}
	defer dir.Close()
	return shows(state, dir, v.Access)
}

// checkEncrypted returns the root directory of an encrypted volume if it is that, and its key is there; else
// it closes it. An Unstage that did not get to its end has taken the key, after which kubelet stages the
// volume again; so may a program on the node, and then it does not while any pod has the volume.
func checkEncrypted(v volume.Volume, root *os.File) (*os.File, error) {
	id, encrypted, err := fscrypt.KeyOf(root)
	if err == nil && !encrypted {
		err = fmt.Errorf("%w: what is there of %s is not encrypted", volume.ErrNotStaged, v.ID)
	}

	there := false
	if err == nil {
		there, err = fscrypt.Present(root, id)
	}
	if err == nil && !there {
		err = fmt.Errorf("%w: the key of %s was taken from the kernel; it comes with the next staging,"+
			" once no pod of this node has the volume", volume.ErrNotStaged, v.ID)
	}

	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// clearing returns how the point is cleared on which a volume is staged. If it is encrypted its key is taken
// away before, also for programs that have it mounted elsewhere. Where that fails, as on a disk that does not
// answer, it is cleared all the same: a repeated call finds nothing there.
func clearing(b Backend, v volume.Volume) func(*target.Point) error {
	unlocker, ok := b.(Unlocker)
	if v.Encryption == "" || !ok {
		return (*target.Point).Clear
	}
	return func(point *target.Point) error {
		return errors.Join(lock(unlocker, point), point.Clear())
	}
}

func lock(u Unlocker, point *target.Point) error {
	state, err := point.State()
	if err != nil || !state.Mounted {
		return err
	}

	root, err := point.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return u.Lock(root)
}
