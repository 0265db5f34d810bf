package criconfig

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
)

func TestThrottlingOfCPUsIsMasked(t *testing.T) {
	cpus := t.TempDir()
	for _, dir := range []string{
		"cpu0/thermal_throttle", "cpu1/cache", "cpu12/thermal_throttle", "cpufreq/thermal_throttle",
	} {
		if err := os.MkdirAll(filepath.Join(cpus, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	want := []string{
		filepath.Join(cpus, "cpu0", "thermal_throttle"),
		filepath.Join(cpus, "cpu12", "thermal_throttle"),
	}
	if diff := cmp.Diff(want, throttling(cpus)); diff != "" {
		t.Error(diff)
	}
}

// The lists are kubelet 1.37's and containerd 2.4's.
func TestMaskedPaths(t *testing.T) {
	pod := podOf(nil)
	c, err := containerSecurity(node, pod, Container{Spec: &pod.Spec.Containers[0]})
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	} {
		if !slices.Contains(c.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}

	pod.Spec.Containers[0].SecurityContext = &v1.SecurityContext{ProcMount: new(v1.UnmaskedProcMount)}
	c, err = containerSecurity(node, pod, Container{Spec: &pod.Spec.Containers[0]})
	if err != nil || len(c.MaskedPaths) != 0 {
		t.Errorf("masked with procMount Unmasked: %v, %v", c.MaskedPaths, err)
	}
}
