package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ioFiles makes the files of groups in a directory, as a hierarchy of v2, or that of blkio of v1.
func ioFiles(t *testing.T, v2 bool, contents map[string]string) (*Host, func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}

	h := &Host{V2: v2, hierarchies: []string{dir}}
	if !v2 {
		h.controllers = map[string]string{"blkio": dir}
	}
	return h, read
}

var device = unix.Mkdev(7, 1)

func TestIOIsLimitedInTheFilesOfV2(t *testing.T) {
	const inForce = "7:11 rbps=1 wbps=max riops=max wiops=max\n7:1 rbps=max wbps=5 riops=max wiops=9\n"
	for _, c := range []struct {
		name   string
		before string
		limits IOLimits
		want   string
	}{
		{"first", "", IOLimits{WriteBytes: 5, ReadOps: 1 << 40},
			"7:1 rbps=max wbps=5 riops=4294967295 wiops=max"},
		{"as it is", inForce, IOLimits{WriteBytes: 5, WriteOps: 9}, inForce},
		{"none, as it is", "7:11 rbps=1 wbps=max riops=max wiops=max\n", IOLimits{},
			"7:11 rbps=1 wbps=max riops=max wiops=max\n"},
		{"lifted", "7:1 rbps=max wbps=5 riops=max wiops=max", IOLimits{},
			"7:1 rbps=max wbps=max riops=max wiops=max"},
	} {
		h, read := ioFiles(t, true, map[string]string{"pods/io.max": c.before})
		if err := h.LimitIO("/pods", device, c.limits); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}

		if got := read("pods/io.max"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLimitsOfIOAreCompared(t *testing.T) {
	of := IOLimits{WriteBytes: 5, WriteOps: 9}
	v1 := map[string]string{
		"pods/blkio.throttle.read_bps_device":   "",
		"pods/blkio.throttle.write_bps_device":  "7:1 5\n",
		"pods/blkio.throttle.read_iops_device":  "7:11 7\n",
		"pods/blkio.throttle.write_iops_device": "7:1 9\n",
	}
	v2 := map[string]string{
		"pods/io.max":             "7:11 rbps=1 wbps=max\n7:1 rbps=max wbps=5 riops=max wiops=9\n",
		"bare/cgroup.controllers": "",
	}

	for _, c := range []struct {
		name   string
		v2     bool
		group  string
		limits IOLimits
		want   bool
		err    error
	}{
		{"the same", true, "/pods", of, true, nil},
		{"the same on v1", false, "/pods", of, true, nil},
		{"others", true, "/pods", IOLimits{WriteBytes: 5}, false, nil},
		{"others on v1", false, "/pods", IOLimits{WriteBytes: 5}, false, nil},
		{"none are wanted", true, "/pods", IOLimits{}, false, nil},
		{"without the controller", true, "/bare", of, false, nil},
		{"without the controller, and none are wanted", true, "/bare", IOLimits{}, true, nil},
		{"gone", true, "/gone", of, false, fs.ErrNotExist},
		{"gone on v1", false, "/gone", of, false, fs.ErrNotExist},
	} {
		contents := v1
		if c.v2 {
			contents = v2
		}
		h, _ := ioFiles(t, c.v2, contents)
		has, err := h.HasIOLimits(c.group, device, c.limits)
		if has != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %t, %v", c.name, has, err)
		}
	}
}

func TestIOIsLimitedInTheFilesOfV1(t *testing.T) {
	h, read := ioFiles(t, false, map[string]string{
		"pod/blkio.throttle.read_bps_device":   "7:1 5\n",
		"pod/blkio.throttle.write_bps_device":  "7:11 6\n7:1 6\n",
		"pod/blkio.throttle.read_iops_device":  "7:11 7\n",
		"pod/blkio.throttle.write_iops_device": "",
	})
	if err := h.LimitIO("/pod", device, IOLimits{WriteBytes: 6, WriteOps: 8}); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"read_bps":   "7:1 0\n",
		"write_bps":  "7:11 6\n7:1 6\n",
		"read_iops":  "7:11 7\n",
		"write_iops": "7:1 8",
	} {
		if got := read("pod/blkio.throttle." + file + "_device"); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestIOOfAGroupWithoutTheController(t *testing.T) {
	h, read := ioFiles(t, true, map[string]string{
		"cgroup.subtree_control":      "",
		"a/cgroup.subtree_control":    "",
		"a/pods/cgroup.controllers":   "",
		"with/io.max":                 "",
		"with/cgroup.subtree_control": "",
	})
	if err := h.LimitIO("/a/pods", device, IOLimits{}); err != nil {
		t.Errorf("no limits: %v", err)
	}
	for _, group := range []string{"/a/pods", "/gone"} {
		if err := h.LimitIO(group, device, IOLimits{ReadOps: 1}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("limits of %s: %v", group, err)
		}
	}

	if err := errors.Join(h.EnableIO("/with"), h.EnableIO("/a/pods")); err != nil {
		t.Error(err)
	}
	if got := read("cgroup.subtree_control") + read("a/cgroup.subtree_control"); got != "+io+io" {
		t.Errorf("enabled %q", got)
	}
	if got := read("with/cgroup.subtree_control"); got != "" {
		t.Errorf("enabled %q where it was", got)
	}
}

func TestIOOfManyDevicesIsLimited(t *testing.T) {
	var others strings.Builder
	for minor := 100; minor < 1100; minor++ {
		fmt.Fprintf(&others, "7:%d rbps=max wbps=1048576 riops=max wiops=max\n", minor)
	}
	h, read := ioFiles(t, true, map[string]string{"pods/io.max": others.String()})
	if err := h.LimitIO("/pods", device, IOLimits{WriteBytes: 5}); err != nil {
		t.Fatal(err)
	}
	const want = "7:1 rbps=max wbps=5 riops=max wiops=max"
	if got := read("pods/io.max"); !strings.HasPrefix(got, want) {
		t.Errorf("written %.50q, want %q", got, want)
	}
}
