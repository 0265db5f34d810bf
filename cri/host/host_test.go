package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestProbeFindsTheCapabilitiesOfTheBoundingSet(t *testing.T) {
	groups, err := cgroup.Open()
	if err != nil {
		testenv.Skip(t, "no control groups: %v", err)
	}

	h, err := Probe(groups)
	if err != nil {
		t.Fatal(err)
	}

	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	empty := strings.Contains(string(status), "CapBnd:\t0000000000000000")
	if empty != (len(h.Capabilities) == 0) {
		t.Errorf("capabilities %v, and the bounding set is empty: %t", h.Capabilities, empty)
	}

	for _, name := range h.Capabilities {
		if !strings.HasPrefix(name, "CAP_") || name != strings.ToUpper(name) {
			t.Errorf("capability %q is not named as in linux/capability.h", name)
		}
	}

	if h.CgroupV2 != groups.V2 || h.OOMScoreMin < -1000 || h.OOMScoreMin > 1000 {
		t.Errorf("host %+v", h)
	}
	if slices.Contains(h.Capabilities, "CAP_SYS_RESOURCE") != (h.OOMScoreMin == -1000) {
		t.Errorf("lowest score %d with capabilities %v", h.OOMScoreMin, h.Capabilities)
	}
}

// asking is a container that asks for the devices at these paths.
func asking(paths ...string) *runtimeapi.ContainerConfig {
	c := &runtimeapi.ContainerConfig{}
	for _, p := range paths {
		c.Devices = append(c.Devices, &runtimeapi.Device{HostPath: p})
	}
	return c
}

func TestADeviceIsFoundAlsoByALink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "null")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}

	found, err := DevicesFor(asking("/dev/null", link))
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{"/dev/null", link} {
		d := found[path]
		if len(d) != 1 || d[0].Path != path || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 {
			t.Errorf("%s: %+v, want the character device 1:3", path, d)
		}
	}
}

func TestOfADirectoryOnlyDevicesAreTaken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if found, err := DevicesFor(asking(dir)); err != nil || len(found[dir]) != 0 {
		t.Errorf("found %+v, %v; want nothing", found, err)
	}
}

func TestAPrivilegedContainerGetsAllButTheDevicesThatItMakesItself(t *testing.T) {
	found, err := DevicesFor(&runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Privileged: true},
	}})
	if err != nil {
		t.Fatal(err)
	}

	var paths []string
	for _, d := range found["/dev"] {
		paths = append(paths, d.Path)
	}

	if !slices.Contains(paths, "/dev/null") || !slices.Contains(paths, "/dev/zero") {
		t.Errorf("devices %v are without those that every machine has", paths)
	}

	for _, p := range paths {
		if p == "/dev/ptmx" || p == "/dev/console" || strings.HasPrefix(p, "/dev/pts/") {
			t.Errorf("%s is given, and a container makes its own", p)
		}
	}
}

func TestWhatIsNotADeviceIsRefusedByName(t *testing.T) {
	for path, want := range map[string]string{
		"/dev/absent":       "no such file",
		"/proc/self/status": "not a device",
	} {
		_, err := DevicesFor(asking(path))
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
