// Package keyfile keeps one half of what the key of an encrypted volume follows from: random bytes in a file
// of the node. The other half is in a Secret. Either is worth nothing without the other, so that a volume
// cannot be read any more once its key file is erased, neither with the Secret nor with all blocks of it.
package keyfile

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// size of a key file. It fills a block: ext4 keeps smaller files in the inode if it may, where they get into
// the journal, and into old copies of what is next to them.
const size = 4096

// What a Secret may have. A shorter one could be guessed: nothing makes guessing slow.
const (
	leastSecret = 32
	mostSecret  = 4096
)

// purpose distinguishes the keys of this driver from all others that are derived from the same Secret.
const purpose = "csi.trivet.dev fscrypt master key 1"

// Dir is the directory of key files, each of which has the ID of its volume as its name. The caller has
// checked that, and locked the volume.
type Dir string

// In returns where a backend's key files are, below the directory of a driver. Two backends may hold
// something under one ID, of which one is somebody's volume.
func In(dir, backend string) Dir { return Dir(filepath.Join(dir, "keys", backend)) }

func (d Dir) path(id string) string { return filepath.Join(string(d), id) }

// Make makes the key file of a new volume, in place of what an interrupted Make or Copy has left. When it
// returns, the file survives a power loss.
func (d Dir) Make(id string) error {
	var half [size]byte
	defer clear(half[:])
	if _, err := rand.Read(half[:]); err != nil {
		return err
	}
	return d.put(id, half[:])
}

// Copy is Make for a volume that has the content of another one, and so its key.
func (d Dir) Copy(id, source string) error {
	half, err := d.read(source)
	if err != nil {
		return err
	}
	defer clear(half)
	return d.put(id, half)
}

func (d Dir) put(id string, half []byte) error {
	if err := d.Erase(id); err != nil {
		return err
	}
	err := d.write(id, half)
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: key file of volume %s: %w", volume.ErrFull, id, err)
	}
	return err
}

func (d Dir) write(id string, half []byte) error {
	if err := errors.Join(os.MkdirAll(string(d), 0o700), datadir.Narrow(string(d))); err != nil {
		return err
	}

	f, err := os.OpenFile(d.path(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	// Where it is written over, the old blocks must be what is written to.
	if btrfs.On(string(d)) {
		if err := btrfs.OverwriteInPlace(f); err != nil {
			return err
		}
	}

	if _, err := f.Write(half); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return d.sync()
}

// sync has the names of key files survive a power loss, and those of the two directories that In has added,
// which may be new.
func (d Dir) sync() error {
	dir := string(d)
	for range 3 {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	return nil
}

// Check returns volume.ErrDamaged if the key file of a volume is not there as a whole.
func (d Dir) Check(id string) error {
	half, err := d.read(id)
	clear(half)
	return err
}

// Look returns volume.ErrLost if a volume has no key file, without reading it.
func (d Dir) Look(id string) error {
	if _, err := os.Lstat(d.path(id)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: key file: %w", volume.ErrLost, err)
	}
	return nil
}

func (d Dir) read(id string) ([]byte, error) {
	f, err := os.OpenFile(d.path(id), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: key file: %w", volume.ErrLost, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: key file: %w", volume.ErrDamaged, err)
	}
	defer f.Close()

	half := make([]byte, size)
	if _, err := io.ReadFull(f, half); err != nil {
		return nil, fmt.Errorf("%w: key file %s: %w", volume.ErrDamaged, f.Name(), err)
	}

	// What an Erase that was cut short leaves is known to everybody.
	if [size]byte(half) == [size]byte{} {
		return nil, fmt.Errorf("%w: key file %s is erased", volume.ErrDamaged, f.Name())
	}
	return half, nil
}

// Erase overwrites the key file of a volume, and removes it. One that is not there is a success. When it
// returns, all that is done; what a disk keeps of blocks that are written over is the disk's.
func (d Dir) Erase(id string) error {
	f, err := os.OpenFile(d.path(id), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	// One that was not written as a whole may have fewer blocks: no more are needed on a full disk.
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, min(st.Size(), size)), 0); err != nil {
		return fmt.Errorf("erase the key file of volume %s: %w", id, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("erase the key file of volume %s: %w", id, err)
	}

	return errors.Join(os.Remove(d.path(id)), durable.SyncDir(string(d)))
}

// Key derives the key of a volume from its key file and what a Secret has for it (HKDF, RFC 5869, with
// SHA-512). The caller clears it. What cannot be what a Secret should have is volume.ErrKey.
func (d Dir) Key(id, secret string) (*fscrypt.Key, error) {
	switch {
	case secret == "":
		return nil, fmt.Errorf("%w: volume %s is encrypted, and no Secret came with the call, or none with"+
			" %s: its PersistentVolume has to name one (nodeStageSecretRef)",
			volume.ErrKey, id, volume.SecretKey)
	case len(secret) < leastSecret, len(secret) > mostSecret:
		return nil, fmt.Errorf("%w: volume %s: %s in its Secret has %d bytes, not %d to %d",
			volume.ErrKey, id, volume.SecretKey, len(secret), leastSecret, mostSecret)
	}

	half, err := d.read(id)
	if err != nil {
		return nil, err
	}
	defer clear(half)

	input := []byte(secret)
	defer clear(input)
	derived, err := hkdf.Key(sha512.New, input, half, purpose, len(fscrypt.Key{}))
	if err != nil {
		return nil, fmt.Errorf("key of volume %s: %w", id, err)
	}
	defer clear(derived)
	return (*fscrypt.Key)(append(make([]byte, 0, len(derived)), derived...)), nil
}
