package machine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/machine"
)

// made is a machine with the given files.
func made(t *testing.T, files map[string]string) machine.Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return machine.Machine{Root: root}
}

const meminfo = `MemTotal:        8000000 kB
MemFree:         1000000 kB
MemAvailable:    3000000 kB
Buffers:          100000 kB
Cached:          1000000 kB
SwapCached:            7 kB
Inactive(file):   300000 kB
AnonPages:        500000 kB
HugePages_Total:       0
`

func TestMemoryIsReadInBytes(t *testing.T) {
	got, err := made(t, map[string]string{"proc/meminfo": meminfo}).Memory()
	want := machine.Memory{
		Total:     8000000 << 10,
		Free:      1000000 << 10,
		Available: 3000000 << 10,
		Anonymous: 500000 << 10,

		InactiveFile: 300000 << 10,
		WorkingSet:   1300007 << 10,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}

	for name, text := range map[string]string{
		"nothing":     "",
		"no number":   "MemTotal: many kB\n",
		"other lines": "HugePages_Total:       0\n",
	} {
		if got, err := made(t, map[string]string{"proc/meminfo": text}).Memory(); err == nil {
			t.Errorf("%s: %+v without an error", name, got)
		}
	}
}

func TestThereMayBeAsManyTasksAsTheLowerLimitAllows(t *testing.T) {
	m := made(t, map[string]string{
		"proc/loadavg":                "0.00 0.01 0.05 2/345 6789\n",
		"proc/sys/kernel/pid_max":     "32768\n",
		"proc/sys/kernel/threads-max": "1000\n",
	})

	now, limit, err := m.Tasks()
	if err != nil || now != 345 || limit != 1000 {
		t.Errorf("%d of %d, %v", now, limit, err)
	}

	broken := made(t, map[string]string{"proc/loadavg": "0.00\n"})
	if _, _, err := broken.Tasks(); err == nil {
		t.Error("a broken loadavg is no error")
	}
}

func TestSwapIsTheFirstArea(t *testing.T) {
	const titles = "Filename\tType\tSize\tUsed\tPriority\n"
	for want, files := range map[string]map[string]string{
		"":          {"proc/swaps": titles},
		"/swap.img": {"proc/swaps": titles + "/swap.img            file\t\t1\t0\t-2\n"},
	} {
		if got, err := made(t, files).Swap(); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}

	if got, err := made(t, nil).Swap(); err != nil || got != "" {
		t.Errorf("a kernel without swap: %q, %v", got, err)
	}
}

func TestCapacityHasHugePagesByTheirSize(t *testing.T) {
	m := made(t, map[string]string{
		"proc/meminfo": meminfo,
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "4\n",
		"sys/kernel/mm/hugepages/strange/nr_hugepages":          "4\n",
	})

	got, err := m.Capacity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	pages := got["hugepages-2Mi"]
	memory := got[v1.ResourceMemory]
	if pages.Value() != 8<<20 || memory.Value() != 8000000<<10 || len(got) != 4 {
		t.Errorf("capacity %v", got)
	}
	if cpus := got[v1.ResourceCPU]; cpus.Value() < 1 {
		t.Errorf("%s CPUs", cpus.String())
	}
}

func TestInfoIsWhatTheFilesSay(t *testing.T) {
	got := made(t, map[string]string{
		"etc/machine-id":                 "m\n",
		"etc/os-release":                 "ID=x\nPRETTY_NAME=\"Example 1\"\n",
		"proc/sys/kernel/random/boot_id": "b\n",
		"proc/sys/kernel/osrelease":      "6.18.0\n",
	}).Info()

	got.Architecture = ""
	want := v1.NodeSystemInfo{
		MachineID:       "m",
		SystemUUID:      "m",
		BootID:          "b",
		KernelVersion:   "6.18.0",
		OperatingSystem: "linux",
		OSImage:         "Example 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	swap := made(t, map[string]string{"proc/meminfo": "MemTotal: 8 kB\nSwapTotal: 4 kB\n"}).Info().Swap
	if swap == nil || *swap.Capacity != 4096 {
		t.Errorf("swap %+v", swap)
	}
	for users, want := range map[string]bool{
		"         0          0 4294967295\n": false,
		"         0     100000      65536\n": true,
	} {
		got := made(t, map[string]string{"proc/self/uid_map": users}).Info().RunningInUserNamespace
		if got == nil || *got != want {
			t.Errorf("map %q: in a user namespace: %v", users, got)
		}
	}
	if got := made(t, nil).Info(); got.OSImage != "Linux" {
		t.Errorf("a machine without os-release: %q", got.OSImage)
	}
}

func TestAppArmorIsOnWhenTheKernelSaysSo(t *testing.T) {
	const file = "sys/module/apparmor/parameters/enabled"
	for text, want := range map[string]bool{"Y\n": true, "N\n": false} {
		if got := made(t, map[string]string{file: text}).AppArmor(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if made(t, nil).AppArmor() {
		t.Error("on without the module")
	}
}

func TestThisMachineCanBeRead(t *testing.T) {
	var m machine.Machine
	if memory, err := m.Memory(); err != nil || memory.Available <= 0 {
		t.Errorf("memory %+v, %v", memory, err)
	}
	if now, limit, err := m.Tasks(); err != nil || now < 1 || limit <= now {
		t.Errorf("%d tasks of %d, %v", now, limit, err)
	}
	if disk, err := machine.FileSystemOf(t.TempDir()); err != nil || disk.Size <= 0 {
		t.Errorf("file system %+v, %v", disk, err)
	}
	if info := m.Info(); info.KernelVersion == "" || info.BootID == "" {
		t.Errorf("info %+v", info)
	}
}
