// Package fscrypt speaks to the encryption of directories in ext4 by ioctl (Linux,
// Documentation/filesystems/fscrypt.rst), with policies of version 2.
//
// The kernel keeps keys with the mounted file system that they are for, in no keyring of a process or user,
// for as long as that is mounted somewhere. A directory has the policy to be encrypted with one key, and so
// has all that is made in it; the policy names the key by its Identifier.
package fscrypt

import (
	"crypto/hkdf"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Key is a master key: the kernel derives those of files from it.
type Key [unix.FSCRYPT_MAX_KEY_SIZE]byte

// Clear overwrites the key. It is called when the kernel has it.
func (k *Key) Clear() { clear(k[:]) }

// Identifier names a key, and tells nothing of it.
type Identifier [unix.FSCRYPT_KEY_IDENTIFIER_SIZE]byte

// identifierContext is what the kernel derives the identifier of a key with (fs/crypto/hkdf.c, and
// HKDF_CONTEXT_KEY_IDENTIFIER in fscrypt_private.h). It is on disk, in every policy.
const identifierContext = "fscrypt\x00\x01"

// Identifier returns what the kernel will name the key by, so that a wrong one need not be given to it.
func (k *Key) Identifier() (Identifier, error) {
	id, err := hkdf.Key(sha512.New, k[:], nil, identifierContext, len(Identifier{}))
	if err != nil {
		return Identifier{}, fmt.Errorf("identifier of a key: %w", err)
	}
	return Identifier(id), nil
}

// ext4InKernel is there if the kernel has ext4, which may be a module that nobody has needed yet.
const ext4InKernel = "/sys/fs/ext4"

// Supported returns an error if the kernel's ext4 does not encrypt directories.
func Supported() error { return supported(ext4InKernel) }

func supported(ext4 string) error {
	_, err := os.Stat(filepath.Join(ext4, "features/encryption"))
	if err == nil {
		return nil
	}
	if _, err := os.Stat(ext4); err != nil {
		return fmt.Errorf("ext4 is not loaded (modprobe ext4): %w", err)
	}
	return fmt.Errorf("the kernel's ext4 does not encrypt (CONFIG_FS_ENCRYPTION): %w", err)
}

// Add gives the file system that root is in a key.
func Add(root *os.File, k *Key) error {
	id, err := k.Identifier()
	if err != nil {
		return err
	}

	arg := struct {
		unix.FscryptAddKeyArg
		raw Key
	}{raw: *k}
	defer arg.raw.Clear()
	arg.Key_spec.Type = unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER
	arg.Raw_size = uint32(len(arg.raw))
	if err := ioctl(root, unix.FS_IOC_ADD_ENCRYPTION_KEY, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("give the file system of %s a key: %w", root.Name(), err)
	}

	if got := Identifier(arg.Key_spec.U[:len(id)]); got != id {
		_, removed := Remove(root, got)
		return errors.Join(fmt.Errorf("the kernel names a key %x, not %x", got, id), removed)
	}
	return nil
}

// Remove takes a key from the file system that root is in, also one that others gave. What is encrypted with
// it cannot be read any more. One that is not there is a success. It returns whether there are files that are
// still open, and can be read until they are closed.
func Remove(root *os.File, id Identifier) (busy bool, err error) {
	arg := unix.FscryptRemoveKeyArg{Key_spec: specifier(id)}
	err = ioctl(root, unix.FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS, unsafe.Pointer(&arg))
	if errors.Is(err, unix.ENOKEY) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take a key from the file system of %s: %w", root.Name(), err)
	}
	return arg.Removal_status_flags&unix.FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY != 0, nil
}

// Present reports whether the file system that root is in has a key.
func Present(root *os.File, id Identifier) (bool, error) {
	arg := unix.FscryptGetKeyStatusArg{Key_spec: specifier(id)}
	if err := ioctl(root, unix.FS_IOC_GET_ENCRYPTION_KEY_STATUS, unsafe.Pointer(&arg)); err != nil {
		return false, fmt.Errorf("ask the file system of %s for a key: %w", root.Name(), err)
	}
	return arg.Status == unix.FSCRYPT_KEY_STATUS_PRESENT, nil
}

func specifier(id Identifier) unix.FscryptKeySpecifier {
	s := unix.FscryptKeySpecifier{Type: unix.FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER}
	copy(s.U[:], id[:])
	return s
}

// Encrypt gives an empty directory the policy to be encrypted with a key that its file system has: contents
// with AES-256-XTS, names with AES-256-CBC-CTS, of which the length is known up to 32 bytes.
func Encrypt(dir *os.File, id Identifier) error {
	policy := unix.FscryptPolicyV2{
		Version:                   unix.FSCRYPT_POLICY_V2,
		Contents_encryption_mode:  unix.FSCRYPT_MODE_AES_256_XTS,
		Filenames_encryption_mode: unix.FSCRYPT_MODE_AES_256_CTS,
		Flags:                     unix.FSCRYPT_POLICY_FLAGS_PAD_32,
		Master_key_identifier:     id,
	}
	if err := ioctl(dir, unix.FS_IOC_SET_ENCRYPTION_POLICY, unsafe.Pointer(&policy)); err != nil {
		return fmt.Errorf("encrypt %s: %w", dir.Name(), err)
	}
	return nil
}

// KeyOf returns the key that a directory is encrypted with; ok is false if it is not.
func KeyOf(dir *os.File) (id Identifier, ok bool, err error) {
	var policy unix.FscryptPolicyV2
	arg := unix.FscryptGetPolicyExArg{Size: uint64(unsafe.Sizeof(policy))}
	err = ioctl(dir, unix.FS_IOC_GET_ENCRYPTION_POLICY_EX, unsafe.Pointer(&arg))
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		// The latter of a file system whose directories are never encrypted.
		return Identifier{}, false, nil
	}
	if err != nil {
		return Identifier{}, false, fmt.Errorf("encryption policy of %s: %w", dir.Name(), err)
	}

	policy = *(*unix.FscryptPolicyV2)(unsafe.Pointer(&arg.Policy))
	if policy.Version != unix.FSCRYPT_POLICY_V2 {
		err := fmt.Errorf("encryption policy of %s has version %d", dir.Name(), policy.Version)
		return Identifier{}, false, err
	}
	return policy.Master_key_identifier, true, nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
