package machine

import (
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Disk is a file system that the machine has mounted, and what was done on its block device.
type Disk struct {
	// Device is the block device, such as /dev/sda1, or for a tmpfs where it is mounted.
	Device string
	// Size and Used are in bytes.
	Size, Used         uint64
	Inodes, InodesFree uint64
	// IO is nil if the kernel does not count for the device.
	IO *DiskIO
}

// DiskIO is a line of /proc/diskstats, since the machine booted.
type DiskIO struct {
	Reads, ReadsMerged, SectorsRead       uint64
	Writes, WritesMerged, SectorsWritten  uint64
	ReadTime, WriteTime, Time, TimeWeight time.Duration
	InProgress                            uint64
}

// maxDisks bounds the file systems that are shown.
const maxDisks = 64

// Disks returns the file systems that are on block devices, each once, and those in memory, in the order in
// which they were mounted. File systems that are mounted below one of the given directories, as those of pods
// are, are left out. Network file systems are too: one whose server is gone does not answer.
func (m Machine) Disks(without ...string) ([]Disk, error) {
	table, err := m.read("proc/self/mountinfo")
	if err != nil {
		return nil, err
	}

	io := m.diskIO()
	seen := map[string]bool{}
	var out []Disk
	for _, mnt := range mountinfo.Parse(table) {
		device := deviceOf(mnt)
		if device == "" || seen[device] || len(out) == maxDisks || below(mnt.Point, without) {
			continue
		}

		seen[device] = true
		var st unix.Statfs_t
		if unix.Statfs(m.path(mnt.Point), &st) != nil || st.Blocks == 0 {
			continue
		}

		size := uint64(st.Bsize)
		out = append(out, Disk{
			Device:     device,
			Size:       st.Blocks * size,
			Used:       (st.Blocks - st.Bfree) * size,
			Inodes:     st.Files,
			InodesFree: st.Ffree,
			IO:         io[mnt.Device],
		})
	}

	return out, nil
}

// deviceOf returns how a file system is called, empty for one that is not shown.
func deviceOf(mnt mountinfo.Mount) string {
	switch {
	case mnt.FSType == "tmpfs":
		return mnt.Point
	case strings.HasPrefix(mnt.Source, "/dev/") && !strings.HasPrefix(mnt.FSType, "fuse"):
		return mnt.Source
	}
	return ""
}

func below(point string, dirs []string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(point, path.Clean(dir)+"/") {
			return true
		}
	}
	return false
}

// diskIO reads /proc/diskstats, by "MAJOR:MINOR". Its fields are those of
// https://docs.kernel.org/admin-guide/iostats.html; times are in milliseconds.
func (m Machine) diskIO() map[string]*DiskIO {
	text, err := m.read("proc/diskstats")
	if err != nil {
		return nil
	}

	out := map[string]*DiskIO{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 14 {
			continue
		}

		var n [11]uint64
		for i := range n {
			n[i], _ = strconv.ParseUint(fields[3+i], 10, 64)
		}

		out[fields[0]+":"+fields[1]] = &DiskIO{
			Reads:          n[0],
			ReadsMerged:    n[1],
			SectorsRead:    n[2],
			ReadTime:       time.Duration(n[3]) * time.Millisecond,
			Writes:         n[4],
			WritesMerged:   n[5],
			SectorsWritten: n[6],
			WriteTime:      time.Duration(n[7]) * time.Millisecond,
			InProgress:     n[8],
			Time:           time.Duration(n[9]) * time.Millisecond,
			TimeWeight:     time.Duration(n[10]) * time.Millisecond,
		}
	}

	return out
}
