package projectquota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of a project, beyond which writes fail (EDQUOT, or ENOSPC on xfs); 0: none. Those of ext4 do not
// bind who has CAP_SYS_RESOURCE.
type Limits struct {
	Bytes  uint64
	Inodes uint64
}

// Membership is the project of a file.
type Membership struct {
	Project uint32

	// Inherited says of a directory that what is made in it is of its project, too.
	Inherited bool
}

// Project returns the project of an open file.
func Project(f *os.File) (Membership, error) {
	attr, err := attributesOf(f)
	return Membership{Project: attr.project, Inherited: attr.flags&inherit != 0}, err
}

// Put puts an open file, or directory, into a project; 0 is that of all files that are in no other. A
// directory hands it down, unless it is 0. What is in it stays as it is. The error is errors.ErrUnsupported
// where the file system, or the kernel, knows no projects.
func Put(f *os.File, project uint32) error {
	attr, err := attributesOf(f)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}

	before := attr
	attr.project = project
	attr.flags &^= inherit
	if st.IsDir() && project != 0 {
		attr.flags |= inherit
	}
	if attr == before {
		return nil
	}
	if err := control(f, setAttributes, &attr); err != nil {
		return fmt.Errorf("put %s into the project %d: %w", f.Name(), project, unsupported(err))
	}
	return nil
}

// Look returns what a project takes of the file system of an open file, and its limits. Both are zero of one
// that nobody uses.
func Look(f *os.File, project uint32) (Usage, Limits, error) {
	a, err := amountsOf(f, project)
	limits := Limits{Bytes: a.hardBlocks * blockSize, Inodes: a.hardInodes}
	return Usage{Bytes: a.space, Inodes: a.inodes}, limits, err
}

// Limit gives a project limits in place of those that it has. The kernel keeps them in KiB.
func Limit(f *os.File, project uint32, l Limits) error {
	a := amounts{
		hardBlocks: l.Bytes / blockSize,
		hardInodes: l.Inodes,
		valid:      blockLimits | inodeLimits,
	}
	if err := quotactl(f, setQuota, project, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("limit project %d on the file system of %s: %w",
			project, f.Name(), unsupported(err))
	}
	return nil
}

const (
	// The kernel's header linux/quota.h: commands for the type PRJQUOTA, and which limits a struct if_dqblk
	// has. Its blocks are of QIF_DQBLKSIZE.
	getQuota    = 0x800007<<8 | 2
	setQuota    = 0x800008<<8 | 2
	blockLimits = 1
	inodeLimits = 4
	blockSize   = 1024
)

// amounts is struct if_dqblk.
type amounts struct {
	hardBlocks, softBlocks, space  uint64
	hardInodes, softInodes, inodes uint64
	blockTime, inodeTime           uint64
	valid                          uint32
}

// amountsOf asks the file system for what it knows of a project; all is zero of one that nobody has used.
func amountsOf(f *os.File, project uint32) (amounts, error) {
	var a amounts
	err := quotactl(f, getQuota, project, unsafe.Pointer(&a))
	if errors.Is(err, unix.ENOENT) {
		return amounts{}, nil
	}
	if err != nil {
		return amounts{}, fmt.Errorf("use of project %d on the file system of %s: %w",
			project, f.Name(), unsupported(err))
	}
	return a, nil
}

// quotactl is quotactl_fd(2), Linux 5.14.
func quotactl(f *os.File, command uintptr, project uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command, uintptr(project), uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
