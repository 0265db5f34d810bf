package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/volume"
)

const (
	// _IOW('f', 16, __u64), linux/ext4.h
	ext4ResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16
	// _IOW('X', 110, struct xfs_growfs_data), xfs_fs.h
	xfsGrowFSData = 1<<30 | unsafe.Sizeof(xfsGrowth{})<<16 | 'X'<<8 | 110
	xfsGeometryV1 = 2<<30 | unsafe.Sizeof(xfsGeometryData{})<<16 | 'X'<<8 | 100 // XFS_IOC_FSGEOMETRY_V1
)

type xfsGrowth struct {
	blocks     uint64 // the new size
	maxPercent uint32 // of the space for inodes
	_          uint32
}

type xfsGeometryData struct {
	blockSize, rtExtSize, agBlocks, agCount, logBlocks, sectSize, inodeSize, imaxPercent uint32
	dataBlocks                                                                           uint64
	_                                                                                    [72]byte
}

// GrowAttached implements volume.Attacher: device and file system take the file's new size while in use.
func (im *Images) GrowAttached(s volume.Spec, root *os.File) error {
	dev, err := im.find(s.ID)
	if err != nil {
		return err
	}
	if dev == nil {
		return fmt.Errorf("%w: %s has no device", volume.ErrNotStaged, s.ID)
	}
	defer dev.Close()

	have, err := loop.Size(dev)
	if err != nil {
		return err
	}

	if have < s.Size {
		if err := loop.Resize(dev); err != nil {
			return err
		}
	}

	switch s.FSType {
	case "ext4":
		return growExt4(dev, root, s.Size)
	case "xfs":
		return growXFS(root, s.Size)
	}

	return nil
}

func growExt4(dev, root *os.File, size int64) error {
	have, blockSize, err := ext4Blocks(dev)
	if err != nil {
		return err
	}

	blocks := uint64(size / blockSize)
	if blocks <= have {
		return nil
	}

	_, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errors.Is(errno, unix.EPERM) {
		return fmt.Errorf("%w: grow ext4 of %s in use: %w (the kernel demands CAP_SYS_RESOURCE, not so"+
			" for xfs); it grows when it is staged the next time: end all pods that use it",
			volume.ErrInUse, root.Name(), errno)
	}

	if errno != 0 {
		return fmt.Errorf("grow ext4 of %s to %d blocks: %w", root.Name(), blocks, errno)
	}

	return nil
}

// resizeTimeout bounds the check of a file system and its growth, which a large one takes some time for.
const resizeTimeout = 10 * time.Minute

// growUnmounted makes the ext4 of a device as large as it has become, where the kernel would refuse to do so
// once it is mounted. What fails is no reason not to mount it: GrowAttached says what is wrong.
func growUnmounted(dev *os.File, size int64) {
	if mayGrowInUse() {
		return
	}
	if have, err := loop.Size(dev); err != nil || have < size && loop.Resize(dev) != nil {
		return
	}

	blocks, blockSize, err := ext4Blocks(dev)
	if err != nil || uint64(size/blockSize) <= blocks || mountedSomewhere(dev) {
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), resizeTimeout)
	defer cancel()

	// resize2fs demands it
	err = exec.CommandContext(ctx, "e2fsck", "-f", "-p", dev.Name()).Run()
	exit, failed := errors.AsType[*exec.ExitError](err)

	// 1: it has mended something
	if err == nil || failed && exit.ExitCode() == 1 {
		_ = exec.CommandContext(ctx, "resize2fs", dev.Name()).Run()
	}
}

// mayGrowInUse reports whether the process has CAP_SYS_RESOURCE.
func mayGrowInUse() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&header, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// mountedSomewhere asks for the device alone, which the kernel refuses if it is mounted in whatever
// namespace.
func mountedSomewhere(dev *os.File) bool {
	f, err := os.OpenFile(dev.Name(), os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		return true
	}
	f.Close()
	return false
}

// ext4Blocks reads the size of the file system from its superblock; statfs(2) would leave out what ext4 needs
// for itself.
func ext4Blocks(dev *os.File) (blocks uint64, blockSize int64, err error) {
	var super [1024]byte
	if _, err := dev.ReadAt(super[:], 1024); err != nil {
		return 0, 0, fmt.Errorf("read superblock of %s: %w", dev.Name(), err)
	}
	word := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(super[at:])) }
	if magic := binary.LittleEndian.Uint16(super[0x38:]); magic != 0xef53 || word(0x18) > 6 {
		return 0, 0, fmt.Errorf("%s holds no ext4 (magic %#x)", dev.Name(), magic)
	}
	return word(0x150)<<32 | word(4), 1024 << word(0x18), nil
}

func growXFS(root *os.File, size int64) error {
	var g xfsGeometryData
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), xfsGeometryV1, uintptr(unsafe.Pointer(&g))); errno != 0 {
		return fmt.Errorf("geometry of xfs of %s: %w", root.Name(), errno)
	}

	growth := xfsGrowth{blocks: uint64(size) / uint64(g.blockSize), maxPercent: g.imaxPercent}
	if growth.blocks <= g.dataBlocks {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), xfsGrowFSData, uintptr(unsafe.Pointer(&growth))); errno != 0 {
		return fmt.Errorf("grow xfs of %s to %d blocks: %w", root.Name(), growth.blocks, errno)
	}

	return nil
}

// Usage implements volume.Attacher.
func (im *Images) Usage(s volume.Spec, root *os.File) (volume.Usage, error) {
	if root == nil {
		return volume.Usage{Total: s.Size}, nil
	}

	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return volume.Usage{}, &os.PathError{Op: "statfs", Path: root.Name(), Err: err}
	}

	block := fs.Bsize
	return volume.Usage{
		Total:           int64(fs.Blocks) * block,
		Used:            int64(fs.Blocks-fs.Bfree) * block,
		Available:       int64(fs.Bavail) * block,
		InodesTotal:     int64(fs.Files),
		InodesUsed:      int64(fs.Files - fs.Ffree),
		InodesAvailable: int64(fs.Ffree),
	}, nil
}
