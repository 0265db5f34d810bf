package agent

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/machine"
)

const swapTitles = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

// proc makes a machine as kubelet wants it, without swap, but for the given files.
func proc(t *testing.T, changes map[string]string) machine.Machine {
	t.Helper()
	files := map[string]string{
		"proc/swaps":                  swapTitles,
		"proc/meminfo":                "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n",
		"proc/sys/kernel/pid_max":     "32768\n",
		"proc/sys/kernel/threads-max": "32768\n",
	}

	for name, value := range kernelDefaults {
		files["proc/sys/"+name] = value + "\n"
	}

	maps.Copy(files, changes)

	root := t.TempDir()
	for name, value := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return machine.Machine{Root: root}
}

func reserve(name v1.ResourceName, amount string) func(*config.Config) {
	return func(c *config.Config) {
		c.Resources.Reserved = v1.ResourceList{name: resource.MustParse(amount)}
	}
}

func TestAMachineThatTheConfigurationDoesNotAcceptEndsTheStart(t *testing.T) {
	swap := map[string]string{"proc/swaps": swapTitles + "/swap.img            file\t\t1\t0\t-2\n"}
	panics := map[string]string{"proc/sys/kernel/panic": "0\n"}
	nothing := func(*config.Config) {}
	noV1 := func(c *config.Config) { c.Machine.NoCgroupV1 = true }
	kills := func(c *config.Config) { c.Machine.NeedsGroupKills = true }
	kernel := func(c *config.Config) { c.Machine.KernelDefaults = true }
	for name, c := range map[string]struct {
		set     func(*config.Config)
		v1      bool
		changes map[string]string
		want    string
	}{
		"as it should be":       {set: nothing},
		"cgroup v1":             {set: nothing, v1: true},
		"cgroup v1, not wanted": {set: noV1, v1: true, want: "cgroup v1"},
		"cgroup v2":             {set: noV1},
		"OOM in groups on v1":   {set: kills, v1: true, want: "singleProcessOOMKill"},
		"OOM in groups":         {set: kills},
		"swap":                  {set: nothing, changes: swap, want: "/swap.img)"},
		"swap, wanted":          {set: func(c *config.Config) { c.Machine.NoSwap = false }, changes: swap},
		"some reserved":         {set: reserve("pid", "10")},
		"too much memory": {
			set:  reserve("memory", "9Ei"),
			want: "Expected capacity >= reservation",
		},
		"too many processors": {set: reserve("cpu", "4096"), want: "Expected capacity >= reservation"},
		"too many tasks": {
			set:  reserve("pid", "32768"),
			want: "all pid of the machine is reserved",
		},
		"kernel, not protected":    {set: nothing, changes: panics},
		"kernel":                   {set: kernel},
		"kernel with other values": {set: kernel, changes: panics, want: "kernel.panic is 0, not 10"},
	} {
		cfg := defaults(t)
		c.set(&cfg)
		err := checkMachine(cfg, !c.v1, proc(t, c.changes))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}

			continue
		}

		_, advises := errors.AsType[*program.CantRunError](err)
		if !advises || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q and advice", name, err, c.want)
		}
	}
}

func defaults(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Default()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestFilesThatCannotBeReadEndTheStart(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "x.crt")
	if err := os.WriteFile(empty, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkFiles(config.API{}); err != nil {
		t.Errorf("no files: %v", err)
	}

	for name, c := range map[string]struct {
		api   config.API
		field string
	}{
		"CA that is not one":         {config.API{ClientCAFile: empty}, "clientCAFile"},
		"CA that does not exist":     {config.API{ClientCAFile: empty + ".none"}, "clientCAFile"},
		"certificate that is not":    {config.API{CertFile: empty, KeyFile: empty}, "tlsCertFile"},
		"certificate does not exist": {config.API{CertFile: "/none", KeyFile: "/none"}, "tlsCertFile"},
	} {
		err := checkFiles(c.api)
		if _, usage := errors.AsType[*program.UsageError](err); !usage ||
			!strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v, want an error that names %s", name, err, c.field)
		}
	}
}

func TestContainersSwapOnlyWhereTheKernelBoundsIt(t *testing.T) {
	with := machine.Memory{Total: 8, Swap: 4}
	without := machine.Memory{Total: 8}
	for name, c := range map[string]struct {
		memory               machine.Memory
		canBound, wanted, v2 bool
		bounded, limited     bool
	}{
		"LimitedSwap":           {with, true, true, true, true, true},
		"NoSwap":                {with, true, false, true, true, false},
		"none now, maybe later": {without, true, true, true, true, true},
		"a kernel without":      {with, false, true, true, false, true},
		"v1":                    {with, true, true, false, true, false},
		"v1 without swap":       {without, true, true, false, false, false},
	} {
		got := swapPolicy(c.memory, c.canBound, c.wanted, c.v2)
		if got.Bounded != c.bounded || got.Limited != c.limited ||
			got.Memory != c.memory.Total || got.Capacity != c.memory.Swap {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestTheProcessGetsItsOOMScore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oom_score_adj")
	if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := setOOMScore(file, -999); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(got), "-999") {
		t.Errorf("%q, %v", got, err)
	}
}
