package machine_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/node/machine"
)

const mounts = `22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 254:1 /data /data rw shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /run rw shared:2 - tmpfs tmpfs rw
31 22 0:26 / /var/lib/kubelet/pods/u/volumes/x rw - tmpfs tmpfs rw
32 22 0:27 / /net rw - nfs4 server:/x rw
33 22 0:28 / /merged rw - overlay overlay rw
34 22 0:29 / /fuse rw - fuseblk /dev/vdb1 rw
35 22 254:3 / /none rw - xfs /dev/vdc1 rw
`

// A file system is there once, however often it is mounted, and one whose server is away is not asked.
func TestDisksAreThoseOfTheMachine(t *testing.T) {
	m := made(t, map[string]string{
		"proc/self/mountinfo": mounts,
		"proc/diskstats":      " 254       1 vda1 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0\nshort line\n",
	})

	for _, dir := range []string{"data", "run", "var/lib/kubelet/pods/u/volumes/x", "net", "merged", "fuse"} {
		if err := os.MkdirAll(filepath.Join(m.Root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}

	disks, err := m.Disks("/var/lib/kubelet")
	if err != nil {
		t.Fatal(err)
	}

	var names []string
	for _, d := range disks {
		names = append(names, d.Device)
		if d.Size == 0 || d.Used > d.Size {
			t.Errorf("%+v", d)
		}
	}

	if diff := cmp.Diff([]string{"/dev/vda1", "/run"}, names); diff != "" {
		t.Error(diff)
	}

	want := &machine.DiskIO{
		Reads:          1,
		ReadsMerged:    2,
		SectorsRead:    3,
		ReadTime:       4 * time.Millisecond,
		Writes:         5,
		WritesMerged:   6,
		SectorsWritten: 7,
		WriteTime:      8 * time.Millisecond,
		InProgress:     9,
		Time:           10 * time.Millisecond,
		TimeWeight:     11 * time.Millisecond,
	}
	if diff := cmp.Diff(want, disks[0].IO); diff != "" {
		t.Error(diff)
	}
}

func TestTopologyCountsWhatIsTold(t *testing.T) {
	files := map[string]string{}
	for cpu, ids := range map[string][2]string{
		"cpu0": {"0", "0"},
		"cpu1": {"0", "0"},
		"cpu2": {"1", "0"},
		"cpu3": {"0", "1"},
	} {
		dir := "sys/devices/system/cpu/" + cpu + "/topology/"
		files[dir+"core_id"] = ids[0]
		files[dir+"physical_package_id"] = ids[1]
		files[dir+"book_id"] = "-1"
	}

	want := machine.Topology{CPUs: 4, Cores: 3, Sockets: 2}
	if got := made(t, files).Topology(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := made(t, nil).Topology(); got != (machine.Topology{CPUs: machine.CPUs()}) {
		t.Errorf("without sysfs: %+v", got)
	}
}

func TestMemoryModulesAndHugePagesAreAdded(t *testing.T) {
	const mc = "sys/devices/system/edac/mc/"
	m := made(t, map[string]string{
		mc + "mc0/dimm0/size":                                   "16384\n",
		mc + "mc0/dimm0/dimm_mem_type":                          "Registered-DDR4\n",
		mc + "mc0/dimm1/size":                                   "0\n",
		mc + "mc1/dimm0/size":                                   "16384\n",
		mc + "mc1/dimm0/dimm_mem_type":                          "Registered-DDR4\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "10\n",
	})

	want := []machine.DIMMs{{Type: "Registered-DDR4", Count: 2, Bytes: 32 << 30}}
	if diff := cmp.Diff(want, m.DIMMs()); diff != "" {
		t.Error(diff)
	}
	if got := m.HugePageBytes(); got != 20<<20 {
		t.Errorf("huge pages %d", got)
	}
}
