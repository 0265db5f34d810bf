package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Destroy deletes the subvolume name of parent with everything in it at once, subvolumes that others made in
// it included; the kernel gives its space back in the background. What is not there is success.
func Destroy(parent *os.File, name string) error {
	f, err := Open(parent, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	sub, err := Inspect(f)
	f.Close()
	if err != nil {
		return err
	}

	// The group is removed first: afterwards its number could not be found, and in a full one the kernel
	// refuses to delete what is inside.
	if err := dissolve(parent, sub); err != nil {
		return err
	}
	if err := destroyNested(parent, sub); err != nil {
		return err
	}

	var arg volArgs
	copy(arg.name[:len(arg.name)-1], name)
	if err := ioctl(parent, iocSnapDestroy, &arg); err != nil {
		return fmt.Errorf("delete subvolume %s/%s: %w", parent.Name(), name, err)
	}

	dropOwnGroup(parent, sub.ID)
	return nil
}

// dropOwnGroup removes the group of a dead subvolume, which kernels before 6.12 keep; where it is still in
// use the newer ones drop it themselves later.
func dropOwnGroup(f *os.File, id uint64) {
	_ = ioctl(f, iocQgroupCreate, &qgroupCreate{create: 0, id: id})
}

// destroyNested deletes the subvolumes in sub, the innermost first: the kernel refuses to delete one that has
// others in it.
func destroyNested(f *os.File, sub Subvolume) error {
	nested, err := descendants(f, sub.ID)
	if err != nil || len(nested) == 0 {
		return err
	}

	for _, id := range append([]uint64{sub.ID}, nested...) {
		if err := makeWritable(f, id); err != nil {
			return err
		}

		// This fails where there is no limit. If it fails for another reason, so does the deletion.
		_ = LiftOwn(f, Subvolume{ID: id})
	}

	for _, id := range slices.Backward(nested) {
		if err := ioctl(f, iocSnapDestroyV2, &volArgsV2{flags: specByID, id: id}); err != nil {
			return fmt.Errorf("delete subvolume %d of %s: %w", id, f.Name(), err)
		}

		dropOwnGroup(f, id)
	}

	return nil
}

// makeWritable takes the read-only flag off a subvolume: nothing can be deleted from one that its owner has
// made read-only. The subvolume is opened by its number (open_by_handle_at(2)): others may change its name.
func makeWritable(f *os.File, id uint64) error {
	// The handle (FILEID_BTRFS_WITHOUT_PARENT) has inode, subvolume and generation (0: any).
	const withoutParent = 0x4d
	var handle [20]byte
	binary.NativeEndian.PutUint64(handle[0:], firstFree)
	binary.NativeEndian.PutUint64(handle[8:], id)
	fd, err := unix.OpenByHandleAt(
		int(f.Fd()),
		unix.NewFileHandle(withoutParent, handle[:]),
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC,
	)
	if err != nil {
		return fmt.Errorf("open subvolume %d of %s: %w", id, f.Name(), err)
	}

	root := os.NewFile(uintptr(fd), fmt.Sprintf("%s (subvolume %d)", f.Name(), id))
	defer root.Close()

	if err := ioctl(root, iocSubvolFlags, new(uint64)); err != nil {
		return fmt.Errorf("make subvolume %d of %s writable: %w", id, f.Name(), err)
	}

	return nil
}
