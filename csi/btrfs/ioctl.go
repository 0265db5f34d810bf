// Package btrfs speaks to a mounted btrfs by ioctl: subvolumes, their size limits (simple quotas, else
// qgroups), growing the file system. The numbers and structures are those of linux/btrfs.h.
package btrfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A request is an ioctl number: direction, size of the argument, the magic 0x94, number.
const (
	write = 1 << 30
	read  = 2 << 30

	iocSync          = 0x94<<8 | 8
	iocResize        = write | unsafe.Sizeof(volArgs{})<<16 | 0x94<<8 | 3
	iocSubvolCreate  = write | unsafe.Sizeof(volArgs{})<<16 | 0x94<<8 | 14
	iocSnapDestroy   = write | unsafe.Sizeof(volArgs{})<<16 | 0x94<<8 | 15
	iocTreeSearch    = read | write | unsafe.Sizeof(searchArgs{})<<16 | 0x94<<8 | 17
	iocTreeSearchV2  = read | write | unsafe.Offsetof(searchArgsV2{}.found)<<16 | 0x94<<8 | 17
	iocWaitSync      = write | unsafe.Sizeof(uint64(0))<<16 | 0x94<<8 | 22
	iocSnapCreateV2  = write | unsafe.Sizeof(snapArgs{})<<16 | 0x94<<8 | 23
	iocStartSync     = read | unsafe.Sizeof(uint64(0))<<16 | 0x94<<8 | 24
	iocSubvolFlags   = write | unsafe.Sizeof(uint64(0))<<16 | 0x94<<8 | 26
	iocDevInfo       = read | write | unsafe.Sizeof(devInfo{})<<16 | 0x94<<8 | 30
	iocFsInfo        = read | unsafe.Sizeof(fsInfo{})<<16 | 0x94<<8 | 31
	iocBalance       = read | write | unsafe.Sizeof(balance{})<<16 | 0x94<<8 | 32
	iocQuotaCtl      = read | write | unsafe.Sizeof(quotaCtl{})<<16 | 0x94<<8 | 40
	iocQgroupAssign  = write | unsafe.Sizeof(qgroupAssign{})<<16 | 0x94<<8 | 41
	iocQgroupCreate  = write | unsafe.Sizeof(qgroupCreate{})<<16 | 0x94<<8 | 42
	iocQgroupLimit   = read | unsafe.Sizeof(qgroupLimit{})<<16 | 0x94<<8 | 43
	iocGetSubvolInfo = read | unsafe.Sizeof(subvolInfo{})<<16 | 0x94<<8 | 60
	iocSnapDestroyV2 = write | unsafe.Sizeof(volArgsV2{})<<16 | 0x94<<8 | 63
)

type volArgs struct {
	fd   int64
	name [4088]byte
}

type volArgsV2 struct {
	fd             int64
	transid, flags uint64
	_              [4]uint64
	id             uint64
	_              [4032]byte
}

const specByID = 1 << 4

// snapArgs is volArgsV2 with a name.
type snapArgs struct {
	fd             int64 // of the source
	transid, flags uint64
	_              [4]uint64
	name           [4040]byte
}

const snapReadOnly = 1 << 1

type fsInfo struct {
	maxID, devices                  uint64
	fsid                            [16]byte
	nodesize, sectorsize, alignment uint32
	csumType, csumSize              uint16
	flags, generation               uint64
	metadataUUID                    [16]byte
	_                               [944]byte
}

const fsInfoGeneration = 1 << 1

// onlyDevice is the number of the device of a file system that has one.
const onlyDevice = 1

type devInfo struct {
	id                    uint64
	uuid                  [16]byte
	bytesUsed, totalBytes uint64 // bytesUsed belongs to chunks
	_                     [3032]byte
	path                  [1024]byte
}

// balance is struct btrfs_ioctl_balance_args: all chunks of the kinds that its flags name.
type balance struct {
	flags uint64
	_     [1016]byte
}

const balanceMetadata = 1 << 2

type quotaCtl struct{ cmd, status uint64 }

type qgroupCreate struct{ create, id uint64 }

type qgroupAssign struct{ assign, member, group uint64 }

type qgroupLimit struct {
	id, flags, maxReferenced, maxExclusive, reservedReferenced, reservedExclusive uint64
}

const (
	limitMaxReferenced = 1 << 0
	noLimit            = 1<<64 - 1 // takes a limit away
)

type subvolInfo struct {
	id                                 uint64
	name                               [256]byte
	parent, dir, generation, flags     uint64
	uuid, parentUUID, receivedUUID     [16]byte
	changed, created, sent, received   uint64
	changedAt, createdAt, sentAt, gotA [2]uint64
	_                                  [8]uint64
}

func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// On reports whether the file system of path is btrfs.
func On(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC
}

// Info identifies a mounted file system.
type Info struct {
	UUID       string
	Generation uint64 // number of the last transaction
}

// Stat reads the file system's identity through any of its files.
func Stat(f *os.File) (Info, error) {
	arg := fsInfo{flags: fsInfoGeneration}
	if err := ioctl(f, iocFsInfo, &arg); err != nil {
		return Info{}, fmt.Errorf("btrfs of %s: %w", f.Name(), err)
	}
	id := arg.fsid
	return Info{
		UUID:       fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]),
		Generation: arg.generation,
	}, nil
}

// Sync commits the running transaction: what was made or deleted before is on disk afterwards.
func Sync(f *os.File) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), iocSync, 0); errno != 0 {
		return fmt.Errorf("commit btrfs of %s: %w", f.Name(), errno)
	}
	return nil
}

// Commit commits the running transaction and waits for no data that was not synced: beside others on the same
// disk it costs less than Sync.
func Commit(f *os.File) error {
	var transaction uint64
	err := ioctl(f, iocStartSync, &transaction)
	if err == nil {
		err = ioctl(f, iocWaitSync, &transaction)
	}
	if err != nil {
		return fmt.Errorf("commit btrfs of %s: %w", f.Name(), err)
	}
	return nil
}

// Resize makes the file system as large as so many bytes of its only device. What is beyond a smaller size is
// moved; unix.ENOSPC says that there is no room for it.
func Resize(f *os.File, bytes int64) error {
	var arg volArgs
	copy(arg.name[:], fmt.Sprintf("%d:%d", onlyDevice, bytes))
	if err := ioctl(f, iocResize, &arg); err != nil {
		return fmt.Errorf("resize btrfs of %s to %d bytes: %w", f.Name(), bytes, err)
	}
	return nil
}

// Quota is the accounting that enforces limits.
type Quota string

// The accountings of the kernel. Simple quotas (Linux 6.7) charge an extent to the subvolume that wrote it,
// at no cost to speak of.
const (
	SimpleQuota Quota = "simple quota"
	Qgroups     Quota = "qgroups"
)

// QuotaOf returns the accounting that is on, if one is.
func QuotaOf(fs Info) (quota Quota, on bool) {
	mode, err := os.ReadFile(groupsPath(fs) + "/mode")
	if err != nil {
		return "", false
	}
	if strings.TrimSpace(string(mode)) == "squota" {
		return SimpleQuota, true
	}
	return Qgroups, true
}

// EnableQuota turns accounting on, the simple one where the kernel has it. What is already on stays as it is.
func EnableQuota(f *os.File) (Quota, error) {
	info, err := Stat(f)
	if err != nil {
		return "", err
	}

	if quota, on := QuotaOf(info); on {
		return quota, nil
	}

	const enable, enableSimple = 1, 4
	err = ioctl(f, iocQuotaCtl, &quotaCtl{cmd: enableSimple})
	if err == nil {
		return SimpleQuota, nil
	}
	if err := ioctl(f, iocQuotaCtl, &quotaCtl{cmd: enable}); err != nil {
		return "", fmt.Errorf("enable quotas on btrfs of %s: %w", f.Name(), err)
	}

	return Qgroups, nil
}

var errNoSubvolume = errors.New("not a subvolume")
