// Package machine reads what the machine is and how much of it is in use, from proc(5), sysfs and statfs(2):
// the one place of the agent that parses those files for the node as a whole.
package machine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Machine is a machine by the directory that holds its /proc, /sys and /etc. The zero value is this one.
type Machine struct {
	Root string
}

// read reads a small file of the machine.
func (m Machine) read(path string) (string, error) {
	data, err := os.ReadFile(m.path(path))
	return string(data), err
}

func (m Machine) path(path string) string { return filepath.Join(cmp.Or(m.Root, "/"), path) }

// line is the first and only line of a file, empty if that cannot be read.
func (m Machine) line(path string) string {
	text, err := m.read(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

// Memory is the memory of a machine in bytes.
type Memory struct {
	Total     int64
	Free      int64 // not in use for anything
	Available int64 // free, or could be freed without swapping
	Anonymous int64 // mapped, and not from a file
	Swap      int64 // how much swap there is
	SwapFree  int64

	// InactiveFile is page cache that was not used for a while. WorkingSet is all other page cache, and what
	// is mapped: what Kubernetes counts as in use.
	InactiveFile int64
	WorkingSet   int64
}

// Memory reads /proc/meminfo.
func (m Machine) Memory() (Memory, error) {
	text, err := m.read("proc/meminfo")
	if err != nil {
		return Memory{}, err
	}

	out := Memory{}
	var buffers, cached, swapCached int64
	fields := map[string]*int64{
		"MemTotal":       &out.Total,
		"MemFree":        &out.Free,
		"MemAvailable":   &out.Available,
		"AnonPages":      &out.Anonymous,
		"SwapTotal":      &out.Swap,
		"SwapFree":       &out.SwapFree,
		"Inactive(file)": &out.InactiveFile,
		"Buffers":        &buffers,
		"Cached":         &cached,
		"SwapCached":     &swapCached,
	}

	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		field := fields[name]
		if field == nil {
			continue
		}

		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("/proc/meminfo: %s: %w", name, err)
		}

		*field = kib << 10
	}

	if out.Total == 0 {
		return Memory{}, errors.New("/proc/meminfo has no MemTotal")
	}

	out.WorkingSet = max(out.Anonymous+buffers+cached+swapCached-out.InactiveFile, 0)

	return out, nil
}

// FileSystem is how large a file system is, in bytes and inodes, and what of it a user may still take. Some,
// such as btrfs, have no number of inodes: it is 0.
type FileSystem struct {
	Size       int64
	Free       int64
	Inodes     int64
	InodesFree int64
}

// FileSystemOf measures the file system that holds a path.
func FileSystemOf(path string) (FileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return FileSystem{}, fmt.Errorf("file system of %s: %w", path, err)
	}
	return FileSystem{
		Size:       int64(st.Blocks) * st.Bsize,
		Free:       int64(st.Bavail) * st.Bsize,
		Inodes:     int64(st.Files),
		InodesFree: int64(st.Ffree),
	}, nil
}

// Tasks returns how many tasks (processes and threads) there are, and how many there may be.
func (m Machine) Tasks() (now, limit int64, err error) {
	text, err := m.read("proc/loadavg")
	if err != nil {
		return 0, 0, err
	}

	fields := strings.Fields(text)
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("/proc/loadavg: %q", text)
	}

	_, tasks, _ := strings.Cut(fields[3], "/")
	if now, err = strconv.ParseInt(tasks, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("/proc/loadavg: %w", err)
	}

	limit, err = m.MaxTasks()
	return now, limit, err
}

// MaxTasks returns how many tasks there may be at once.
func (m Machine) MaxTasks() (int64, error) {
	limit := int64(math.MaxInt64)
	for _, file := range []string{"proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"} {
		text, err := m.read(file)
		if err != nil {
			return 0, err
		}

		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/%s: %w", file, err)
		}

		limit = min(limit, n)
	}

	return limit, nil
}

// Swap returns the first swap area of /proc/swaps: a line of titles, then one for each area. It is empty when
// swap is off or the kernel has none.
func (m Machine) Swap() (string, error) {
	text, err := m.read("proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("swap of the machine: %w", err)
	}

	_, areas, _ := strings.Cut(text, "\n")
	if fields := strings.Fields(areas); len(fields) > 0 {
		return fields[0], nil
	}

	return "", nil
}

// KernelParameter returns the value of a parameter of sysctl(8) by its path below /proc/sys.
func (m Machine) KernelParameter(name string) (string, error) {
	text, err := m.read(filepath.Join("proc/sys", name))
	if err != nil {
		return "", fmt.Errorf("kernel parameter: %w", err)
	}
	return strings.TrimSpace(text), nil
}

// AppArmor reports whether the kernel confines by AppArmor profiles.
func (m Machine) AppArmor() bool {
	return strings.HasPrefix(m.line("sys/module/apparmor/parameters/enabled"), "Y")
}

// CPUs returns the number of processors that this process may use.
func CPUs() int { return runtime.NumCPU() }

// Capacity returns what the machine has, in the names of Kubernetes, with the file system that holds dir for
// ephemeral storage. Pods are not in it.
func (m Machine) Capacity(dir string) (v1.ResourceList, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, err
	}

	disk, err := FileSystemOf(dir)
	if err != nil {
		return nil, err
	}

	out := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(CPUs()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(memory.Total, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(disk.Size, resource.BinarySI),
	}

	m.addHugePages(out)
	return out, nil
}

// addHugePages adds the huge pages of each size: /sys/kernel/mm/hugepages/hugepages-2048kB and its siblings.
func (m Machine) addHugePages(out v1.ResourceList) {
	const dir = "sys/kernel/mm/hugepages"
	entries, err := os.ReadDir(m.path(dir))
	if err != nil {
		// the kernel has none
		return
	}

	for _, e := range entries {
		name := strings.TrimPrefix(strings.TrimSuffix(e.Name(), "kB"), "hugepages-")
		kib, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}

		count, err := strconv.ParseInt(m.line(filepath.Join(dir, e.Name(), "nr_hugepages")), 10, 64)
		if err != nil {
			continue
		}

		size := resource.NewQuantity(kib<<10, resource.BinarySI)
		kind := v1.ResourceName(v1.ResourceHugePagesPrefix + size.String())
		out[kind] = *resource.NewQuantity(count*kib<<10, resource.BinarySI)
	}
}

// Info returns the part of a Node's system information that the machine says; the versions of programs are
// not in it. What cannot be read is empty.
func (m Machine) Info() v1.NodeSystemInfo {
	info := v1.NodeSystemInfo{
		MachineID:       m.line("etc/machine-id"),
		SystemUUID:      m.line("sys/class/dmi/id/product_uuid"),
		BootID:          m.line("proc/sys/kernel/random/boot_id"),
		KernelVersion:   m.line("proc/sys/kernel/osrelease"),
		OperatingSystem: "linux",
		Architecture:    runtime.GOARCH,
		OSImage:         m.osImage(),
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}
	if memory, err := m.Memory(); err == nil && memory.Swap > 0 {
		info.Swap = &v1.NodeSwapStatus{Capacity: new(memory.Swap)}
	}
	info.RunningInUserNamespace = m.inUserNamespace()

	return info
}

// inUserNamespace reports whether this process is in a user namespace that is not the first one, whose map is
// all numbers (user_namespaces(7)); nil: not known.
func (m Machine) inUserNamespace() *bool {
	text, err := m.read("proc/self/uid_map")
	if err != nil {
		return nil
	}
	return new(!slices.Equal(strings.Fields(text), []string{"0", "0", "4294967295"}))
}

// osImage is the name of the distribution, of os-release(5).
func (m Machine) osImage() string {
	text, err := m.read("etc/os-release")
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return "Linux"
}

// Booted returns when the machine was booted, the zero time if the kernel does not say. In a container that
// is the boot of the machine beneath.
func Booted() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}
