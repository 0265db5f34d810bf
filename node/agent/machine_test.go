package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// proc makes a /proc as kubelet wants it, without swap.
func proc(t *testing.T, changes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"}
	for name, value := range kernelDefaults {
		files["sys/"+name] = value + "\n"
	}

	for name, value := range changes {
		files[name] = value
	}

	for name, value := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return dir
}

func TestAMachineThatTheConfigurationDoesNotAcceptEndsTheStart(t *testing.T) {
	swap := map[string]string{
		"swaps": "Filename\tType\tSize\tUsed\tPriority\n/swap.img            file\t\t1\t0\t-2\n",
	}
	panics := map[string]string{"sys/kernel/panic": "0\n"}
	for name, c := range map[string]struct {
		set     func(k *kubeletconfig.Configuration)
		v2      bool
		changes map[string]string
		want    string
	}{
		"as it should be": {func(*kubeletconfig.Configuration) {}, true, nil, ""},
		"cgroup v1":       {func(*kubeletconfig.Configuration) {}, false, nil, ""},
		"cgroup v1, not wanted": {func(k *kubeletconfig.Configuration) { k.FailCgroupV1 = new(true) }, false,
			nil,
			"cgroup v1"},
		"cgroup v2": {func(k *kubeletconfig.Configuration) { k.FailCgroupV1 = new(true) }, true, nil, ""},
		"OOM in groups on v1": {func(k *kubeletconfig.Configuration) { k.SingleProcessOOMKill = new(false) },
			false,
			nil, "singleProcessOOMKill"},
		"OOM in groups": {func(k *kubeletconfig.Configuration) { k.SingleProcessOOMKill = new(false) }, true,
			nil,
			""},
		"swap": {func(*kubeletconfig.Configuration) {}, true, swap, "/swap.img)"},
		"swap, wanted": {func(k *kubeletconfig.Configuration) { k.FailSwapOn = new(false) }, true,
			swap, ""},
		"some reserved": {func(k *kubeletconfig.Configuration) {
			k.SystemReserved = map[string]string{"memory": "1Mi", "pid": "10"}
		}, true, nil, ""},
		"more memory reserved than there is": {func(k *kubeletconfig.Configuration) {
			k.SystemReserved = map[string]string{"memory": "9Ei"}
		}, true, nil, "all memory of the machine is reserved"},
		"more processors reserved than there are": {func(k *kubeletconfig.Configuration) {
			k.ReservedSystemCPUs = "0-4095"
		}, true, nil, "all cpu of the machine is reserved"},
		"kernel, not protected": {func(*kubeletconfig.Configuration) {}, true, panics, ""},
		"kernel": {func(k *kubeletconfig.Configuration) { k.ProtectKernelDefaults = true },
			true, nil, ""},
		"kernel of another mind": {func(k *kubeletconfig.Configuration) { k.ProtectKernelDefaults = true },
			true, panics,
			"kernel.panic is 0, not 10"},
	} {
		k := config.Defaults().Kubelet
		c.set(&k)
		err := checkMachine(&k, c.v2, proc(t, c.changes))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}

			continue
		}

		if _, ok := err.(*program.CantRunError); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q and advice", name, err, c.want)
		}
	}
}

func TestFilesThatCannotBeReadEndTheStart(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "x.crt")
	if err := os.WriteFile(empty, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, set := range map[string]func(k *kubeletconfig.Configuration){
		"clientCAFile, no certificate": func(k *kubeletconfig.Configuration) {
			k.Authentication.X509.ClientCAFile = empty
		},
		"clientCAFile that is not there": func(k *kubeletconfig.Configuration) {
			k.Authentication.X509.ClientCAFile = empty + ".none"
		},
		"tlsCertFile, no certificate": func(k *kubeletconfig.Configuration) {
			k.TLSCertFile,
				k.TLSPrivateKeyFile = empty, empty
		},
		"tlsCertFile that is not there": func(k *kubeletconfig.Configuration) {
			k.TLSCertFile,
				k.TLSPrivateKeyFile = "/none", "/none"
		},
	} {
		k := config.Defaults().Kubelet
		if err := checkFiles(&k); err != nil {
			t.Fatalf("no files: %v", err)
		}

		set(&k)
		field, _, _ := strings.Cut(strings.ReplaceAll(name, ",", " "), " ")
		if err := checkFiles(&k); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPodsPerCoreLowersMaxPods(t *testing.T) {
	for _, c := range []struct{ most, perCore, cores, want int64 }{
		{110, 0, 2, 110}, {110, 10, 2, 20}, {110, 100, 2, 110},
	} {
		if got := maxPods(c.most, c.perCore, c.cores); got != c.want {
			t.Errorf("maxPods %d, podsPerCore %d, %d cores: %d, want %d", c.most, c.perCore, c.cores, got,
				c.want)
		}
	}
}

func TestFeaturesAreDeclaredWhenTheirGateIsOn(t *testing.T) {
	if got := declaredFeatures(func(string) bool { return true }); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if got := declaredFeatures(func(string) bool { return false }); len(got) != 0 {
		t.Errorf("%v, with all gates off", got)
	}
}
