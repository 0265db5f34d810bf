package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
)

// fileSystem is what is to be known of a kind of file system.
type fileSystem struct {
	smallest      int64    // bytes that mkfs accepts
	debianPackage string   // that has mkfs
	mkfsArgs      []string // before the path
}

var fileSystems = map[string]fileSystem{
	"ext4": {
		smallest:      8 << 20,
		debianPackage: "e2fsprogs",
		mkfsArgs:      []string{"-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"},
	},
	"xfs": {
		smallest:      300 << 20,
		debianPackage: "xfsprogs",
		mkfsArgs:      []string{"-q", "-f", "-K"}, // -K: a new file has nothing to discard
	},
}

// candidates are the file systems that a volume may get, the best first.
func candidates(s volume.Spec) []string {
	switch {
	case s.FSType != "":
		return []string{s.FSType}
	case s.Encryption != "":
		return []string{"ext4"}
	case s.Size >= fileSystems["xfs"].smallest:
		return []string{"xfs", "ext4"}
	}
	return []string{"ext4", "xfs"}
}

// mkfsTimeout bounds a mkfs, which takes some 10 ms on an idle disk.
const mkfsTimeout = 2 * time.Minute

func format(mkfs string, s volume.Spec, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), mkfsTimeout)
	defer cancel()
	args := slices.Clone(fileSystems[s.FSType].mkfsArgs)
	if s.Encryption != "" {
		args = append(args, "-O", "encrypt")
	}
	args = append(args, path)
	if out, err := exec.CommandContext(ctx, mkfs, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.%s: %w: %s", s.FSType, err, out)
	}
	return nil
}

// Requests of ioctl(2).
const (
	// _IOW('f', 16, __u64), linux/ext4.h
	ext4ResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16
	// struct xfs_growfs_data, xfs_fs.h
	xfsGrowFSData = 1<<30 | unsafe.Sizeof(xfsGrowth{})<<16 | 'X'<<8 | 110
	xfsGeometryV1 = 2<<30 | unsafe.Sizeof(xfsGeometryData{})<<16 | 'X'<<8 | 100 // XFS_IOC_FSGEOMETRY_V1
)

// xfsGrowth is struct xfs_growfs_data.
type xfsGrowth struct {
	blocks     uint64 // the new size
	maxPercent uint32 // of the space for inodes
	_          uint32
}

// xfsGeometryData is struct xfs_fsop_geom_v1.
type xfsGeometryData struct {
	blockSize   uint32
	_           [6]uint32
	imaxPercent uint32
	dataBlocks  uint64
	_           [72]byte
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

	err = ioctl(root, ext4ResizeFS, &blocks)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: grow ext4 of %s in use: %w (the kernel demands CAP_SYS_RESOURCE, not so"+
			" for xfs); it grows when it is staged the next time: end all pods that use it",
			volume.ErrInUse, root.Name(), err)
	}

	if err != nil {
		return fmt.Errorf("grow ext4 of %s to %d blocks: %w", root.Name(), blocks, err)
	}

	return nil
}

func growXFS(root *os.File, size int64) error {
	var g xfsGeometryData
	if err := ioctl(root, xfsGeometryV1, &g); err != nil {
		return fmt.Errorf("geometry of xfs of %s: %w", root.Name(), err)
	}

	growth := xfsGrowth{blocks: uint64(size) / uint64(g.blockSize), maxPercent: g.imaxPercent}
	if growth.blocks <= g.dataBlocks {
		return nil
	}
	if err := ioctl(root, xfsGrowFSData, &growth); err != nil {
		return fmt.Errorf("grow xfs of %s to %d blocks: %w", root.Name(), growth.blocks, err)
	}

	return nil
}

func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
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

// resizeTimeout bounds the check of a file system and its growth, which take some time for a large one.
const resizeTimeout = 10 * time.Minute

// growUnmounted makes the ext4 of a device as large as it has become, where the kernel would refuse to do so
// once it is mounted. What fails is no reason not to mount it: GrowStaged says what is wrong.
func growUnmounted(dev *os.File, size int64) {
	if mayGrowInUse() || growDevice(dev, size) != nil {
		return
	}

	blocks, blockSize, err := ext4Blocks(dev)
	if err != nil || uint64(size/blockSize) <= blocks || mountedSomewhere(dev) {
		return
	}

	// resize2fs demands a check before; with status 1 that has mended something.
	ctx, cancel := context.WithTimeout(context.Background(), resizeTimeout)
	defer cancel()

	err = exec.CommandContext(ctx, "e2fsck", "-f", "-p", dev.Name()).Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
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

// mountedSomewhere asks for the device exclusively, which the kernel refuses if it is mounted in whatever
// mount namespace.
func mountedSomewhere(dev *os.File) bool {
	f, err := os.OpenFile(dev.Name(), os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		return true
	}
	f.Close()
	return false
}
