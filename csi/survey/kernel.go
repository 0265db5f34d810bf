package survey

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/target"
)

// Kernel is what kernel and node offer.
type Kernel struct {
	Release     string
	Mounts      error // why volumes cannot be mounted; nil if they can
	Btrfs       bool
	SimpleQuota bool
	Loop        bool
	Encryption  error             // why volumes cannot be encrypted; nil if they can
	IOLimits    string            // where limits of I/O can be set: "cgroup v2", "cgroup v1"; "": nowhere
	Mkfs        map[string]string // by file system: path of the program; those that are installed

	// Capabilities of the caller.
	SysAdmin    bool
	SysResource bool
}

// FileSystems are those that volumes may have.
var FileSystems = []string{"btrfs", "ext4", "xfs"}

func lookAtKernel() Kernel {
	k := Kernel{
		Mounts:     target.Supported(),
		Encryption: fscrypt.Supported(),
		Mkfs:       map[string]string{},
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		k.Release = unix.ByteSliceToString(name.Release[:])
	}

	types, _ := os.ReadFile("/proc/filesystems")
	k.Btrfs = strings.Contains(string(types), "\tbtrfs\n")
	_, err := os.Stat("/sys/fs/btrfs/features/simple_quota")
	k.SimpleQuota = err == nil

	_, err = os.Stat("/dev/loop-control")
	k.Loop = err == nil
	for _, fs := range FileSystems {
		if path, err := exec.LookPath("mkfs." + fs); err == nil {
			k.Mkfs[fs] = path
		}
	}

	k.IOLimits = ioLimits()
	effective := capabilities()
	k.SysAdmin = effective&(1<<unix.CAP_SYS_ADMIN) != 0
	k.SysResource = effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	return k
}

// ioLimits returns the hierarchy of control groups that has a controller of I/O.
func ioLimits() string {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil && strings.Contains(" "+string(controllers)+" ", " io ") {
		return "cgroup v2"
	}
	if _, err := os.Stat("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device"); err == nil {
		return "cgroup v1"
	}
	return ""
}

func capabilities() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	number, _, _ := strings.Cut(after, "\n")
	effective, _ := strconv.ParseUint(strings.TrimSpace(number), 16, 64)
	return effective
}
