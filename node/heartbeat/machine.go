package heartbeat

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Memory reads total and available bytes from /proc/meminfo (proc(5)).
func Memory() (total, available int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()

	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}

		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}

		switch fields[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}

	if total == 0 {
		return 0, 0, fmt.Errorf("/proc/meminfo has no MemTotal")
	}

	return total, available, nil
}

// disk reads the size and the free part of the file system that holds path.
func disk(path string) (total, free, inodes, inodesFree uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, 0, 0, fmt.Errorf("file system of %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	return st.Blocks * size, st.Bavail * size, st.Files, st.Ffree, nil
}

// pids reads how many tasks there are and may be.
func pids() (now, limit int64, err error) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, 0, err
	}

	fields := strings.Fields(string(data))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("/proc/loadavg: %q", data)
	}

	_, tasks, _ := strings.Cut(fields[3], "/")
	if now, err = strconv.ParseInt(tasks, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("/proc/loadavg: %w", err)
	}

	limit, err = MaxPIDs()
	return now, limit, err
}

// MaxPIDs is how many tasks there may be at once.
func MaxPIDs() (int64, error) {
	limit := int64(math.MaxInt64)
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}

		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}

		limit = min(limit, n)
	}

	return limit, nil
}

// capacity is what the machine has.
func capacity(rootDir string, maxPods int64) (v1.ResourceList, error) {
	total, _, err := Memory()
	if err != nil {
		return nil, err
	}

	space, _, _, _, err := disk(rootDir)
	if err != nil {
		return nil, err
	}

	out := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(total, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(space), resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}

	addHugepages(out)
	return out, nil
}

func addHugepages(out v1.ResourceList) {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return
	}

	for _, d := range dirs {
		kib, err := strconv.ParseInt(
			strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"),
			10,
			64,
		)
		if err != nil {
			continue
		}

		data, err := os.ReadFile(filepath.Join(d, "nr_hugepages"))
		if err != nil {
			continue
		}

		count, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			continue
		}

		size := resource.NewQuantity(kib<<10, resource.BinarySI)
		out[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(
			count*kib<<10,
			resource.BinarySI,
		)
	}
}

// systemInfo is the part of NodeSystemInfo that the machine tells.
func systemInfo() v1.NodeSystemInfo {
	info := v1.NodeSystemInfo{
		MachineID:       line("/etc/machine-id"),
		SystemUUID:      line("/sys/class/dmi/id/product_uuid"),
		BootID:          line("/proc/sys/kernel/random/boot_id"),
		OperatingSystem: "linux",
		Architecture:    goruntime.GOARCH,
		OSImage:         osImage(),
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}

	var u unix.Utsname
	if unix.Uname(&u) == nil {
		info.KernelVersion = unix.ByteSliceToString(u.Release[:])
	}

	return info
}

func line(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for l := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}
