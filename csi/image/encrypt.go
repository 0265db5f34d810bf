package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/volume"
)

// contentDir is the root directory of an encrypted volume in its file system: the root of an ext4 cannot be
// encrypted, for e2fsck has to find lost+found there.
const contentDir = "encrypted"

// usedMark is an attribute of the root of such a file system, which says that contentDir was there.
const usedMark = "trusted.trivet.encrypted"

// CheckEncryption refuses what an image cannot encrypt, see volume.Encrypting.
func (*Images) CheckEncryption(s volume.Spec) error {
	switch {
	case s.Encryption != volume.Fscrypt:
		return fmt.Errorf("%w: encryption %q", volume.ErrInvalid, s.Encryption)
	case s.Access == volume.Block:
		return fmt.Errorf("%w: a raw block volume has no directory to encrypt (encryption fscrypt): the pod"+
			" can encrypt what is on its device", volume.ErrInvalid)
	case s.FSType != "ext4":
		return fmt.Errorf("%w: encryption fscrypt is for file system ext4, not %s",
			volume.ErrInvalid, s.FSType)
	}
	if err := fscrypt.Supported(); err != nil {
		return fmt.Errorf("%w: encryption fscrypt: %w", volume.ErrInvalid, err)
	}
	return nil
}

// MakeKey makes the key file of a new volume, if that is encrypted. It is the last thing that is made: where
// there is a key file after a power loss, the volume was there. One that is made again keeps it, so that it
// is never without; that of another volume was erased when the creation began.
func (x *Images) MakeKey(s volume.Spec) error {
	if s.Encryption == "" || x.keys.Check(s.ID) == nil {
		return nil
	}
	return x.keys.Make(s.ID)
}

// CheckKey returns volume.ErrDamaged for an encrypted volume whose key file is gone.
func (x *Images) CheckKey(s volume.Spec) error {
	if s.Encryption == "" {
		return nil
	}
	return x.keys.Check(s.ID)
}

// EraseKey erases the key file of a volume that is not there, see volume.Encrypting.
func (x *Images) EraseKey(id string) error { return x.keys.Erase(id) }

// Unlock gives an encrypted volume its key, see publish.Unlocker. The key that it is first unlocked with is
// its key from then on.
func (x *Images) Unlock(s volume.Spec, root *os.File, secret string) (*os.File, error) {
	key, err := x.keys.Key(s.ID, secret)
	if err != nil {
		return nil, err
	}
	defer key.Clear()
	id, err := key.Identifier()
	if err != nil {
		return nil, err
	}

	dir, err := contentOf(s, root)
	if err != nil {
		return nil, firstUse(s, err)
	}
	if err := unlock(s, root, dir, key, id); err != nil {
		return nil, errors.Join(firstUse(s, err), dir.Close())
	}
	return dir, nil
}

// firstUse explains why a volume is not used for the first time.
func firstUse(s volume.Spec, err error) error {
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: volume %s is encrypted and was never used: that has to be without mount"+
			" option ro once: %w", volume.ErrInvalid, s.ID, err)
	}
	return err
}

// unlock gives the file system of a volume the key of the volume. A wrong one never comes to the kernel.
func unlock(s volume.Spec, root, dir *os.File, key *fscrypt.Key, id fscrypt.Identifier) error {
	have, encrypted, err := fscrypt.KeyOf(dir)
	if err != nil {
		return err
	}
	if encrypted && have != id {
		return fmt.Errorf("%w: volume %s is encrypted with another key than that of %s in its Secret: give"+
			" the Secret the text that it had when the volume was first used; for another key, copy the"+
			" files to a new volume", volume.ErrKey, s.ID, volume.SecretKey)
	}

	if err := fscrypt.Add(dir, key); err != nil {
		return err
	}
	if encrypted {
		return nil
	}

	// Nobody has the directory before. Once a pod has it, it must not be without its policy again.
	err = unix.Fsetxattr(int(root.Fd()), usedMark, []byte{'1'}, 0)
	if err == nil {
		err = fscrypt.Encrypt(dir, id)
	}
	if err != nil {
		_, removed := fscrypt.Remove(dir, id)
		return errors.Join(err, removed)
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync the file system of volume %s: %w", s.ID, err)
	}
	return nil
}

// Lock takes the key of an encrypted volume away, see publish.Unlocker.
func (*Images) Lock(root *os.File) error {
	dir, err := openContent(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()

	id, encrypted, err := fscrypt.KeyOf(dir)
	if err != nil || !encrypted {
		return err
	}

	// What is still open can be read until it is closed: unmounting says that.
	_, err = fscrypt.Remove(dir, id)
	return err
}

// contentOf is openContent that makes the directory where it was never there. One that is gone is not made
// again: e2fsck may have put it into lost+found, and pods would find an empty volume.
func contentOf(s volume.Spec, root *os.File) (*os.File, error) {
	dir, err := openContent(root)
	if !errors.Is(err, os.ErrNotExist) {
		return dir, err
	}
	if _, err := unix.Fgetxattr(int(root.Fd()), usedMark, nil); err == nil {
		return nil, fmt.Errorf("%w: directory %q of volume %s is not in its file system any more; look in"+
			" lost+found", volume.ErrDamaged, contentDir, s.ID)
	}
	if err := unix.Mkdirat(int(root.Fd()), contentDir, 0o755); err != nil {
		return nil, &os.PathError{Op: "make the encrypted directory", Path: contentDir, Err: err}
	}
	return openContent(root)
}

// openContent opens the root directory of an encrypted volume. root is the root of its file system, or that
// directory.
func openContent(root *os.File) (*os.File, error) {
	name := contentDir
	_, is, err := fscrypt.KeyOf(root)
	if err != nil {
		return nil, err
	}
	if is {
		name = "."
	}

	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(root.Fd()), name, flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open the encrypted directory", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
