package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

func TestFlagsWinOverTheFileAndTheFileOverTheDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cri.toml")
	text := "socket = '/file'\nstate_dir = '/file'\n[cni]\nbin_dirs = ['/one', '/two']\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	flags := flag.NewFlagSet("trivet-cri", flag.ContinueOnError)
	s := newSettings(flags, options)
	args := []string{"--config=" + file, "--socket=/flag", "--cni-bin-dir=/plugins"}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}

	cfg, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Socket != "/flag" || cfg.StateDir != "/file" || cfg.RootDir != "/var/lib/trivet/cri" {
		t.Errorf("%+v", cfg)
	}
	if dirs := cfg.CNI.BinDirs; len(dirs) != 2 || dirs[0] != "/plugins" || dirs[1] != "/two" {
		t.Errorf("directories of plugins %v", dirs)
	}
}

func TestOnlyAFileThatIsNamedMustExist(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent.toml")
	flags := flag.NewFlagSet("trivet-cri", flag.ContinueOnError)
	s := newSettings(flags, imageOptions)
	if err := flags.Parse([]string{"--config=" + absent}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load(); err == nil {
		t.Error("a file that is named and does not exist is not an error")
	}
}
