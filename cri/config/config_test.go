package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// load writes a file and loads it over the defaults.
func load(t *testing.T, text string) (cfg Config, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cri.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg = Default()
	err = Load(file, true, &cfg)
	return cfg, err
}

func TestDefaultsAreValidAndUsedForWhatTheFileDoesNotSay(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	cfg, err := load(t, "oci_runtime = 'runc'\n[cni]\ncache_dir = '/cache'\n")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.OCIRuntime != "runc" || cfg.CNI.CacheDir != "/cache" ||
		cfg.CNI.ConfDir != "/etc/cni/net.d" || cfg.Socket != "/run/trivet/cri.sock" {
		t.Errorf("%+v", cfg)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"socket = '/s'\nsokcet = '/s'\n": "sokcet",
		"socket = '/s'\nroot_dir = 7\n":  "cri.toml:2:",
		"socket = '/s'\n[[\n":            "cri.toml:2:",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v of %q does not contain %q", err, text, want)
		}
	}
}

func TestFileThatDoesNotExistIsAnErrorOnlyIfItIsRequired(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent.toml")
	for required, want := range map[bool]bool{true: true, false: false} {
		cfg := Default()
		if err := Load(absent, required, &cfg); (err != nil) != want {
			t.Errorf("required %t: %v", required, err)
		}
	}
}

func TestValuesThatCannotBeUsedAreRefusedByTheirKey(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"socket":                            func(c *Config) { c.Socket = "cri.sock" },
		"cni.cache_dir":                     func(c *Config) { c.CNI.CacheDir = "" },
		"cgroup_driver":                     func(c *Config) { c.CgroupDriver = "none" },
		"cni.bin_dirs":                      func(c *Config) { c.CNI.BinDirs = nil },
		"allowed_annotations":               func(c *Config) { c.AllowedAnnotations = []string{"[*"} },
		"runtimes.kata.program":             func(c *Config) { c.Runtimes = map[string]Runtime{"kata": {}} },
		"runtimes.kata.allowed_annotations": brokenPattern,
	} {
		cfg := Default()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("error %v does not begin with %s", err, key)
		}
	}
}

func brokenPattern(c *Config) {
	c.Runtimes = map[string]Runtime{
		"kata": {Program: "kata", AllowedAnnotations: []string{"io.kata[*"}},
	}
}

func TestAnnotationsAreAllowedPerHandler(t *testing.T) {
	if allowed := Default().AllowedAnnotations; len(allowed) > 0 {
		t.Errorf("%v are allowed by default", allowed)
	}

	cfg, err := load(t, "allowed_annotations = ['run.oci.handler']\n"+
		"[runtimes.kata]\nprogram = 'kata'\nallowed_annotations = ['io.katacontainers.*']\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(cfg.AllowedAnnotations) != 1 || len(cfg.Runtimes["kata"].AllowedAnnotations) != 1 {
		t.Errorf("got %v and %v", cfg.AllowedAnnotations, cfg.Runtimes["kata"].AllowedAnnotations)
	}
}
