package ctr_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/trivet-node/trivet/cri/ctr"
)

// These are the calls of kind v0.33 (pkg/cluster/nodeutils, pkg/build/nodeimage), and how people write them.
func TestCallsOfKindAreServed(t *testing.T) {
	const id = "sha256:0123456789abcdef"
	for line, want := range map[string]ctr.Call{
		"--namespace=k8s.io images import --all-platforms --digests --snapshotter=overlayfs -": ctr.Import{
			File: "-",
		},
		"--namespace=k8s.io images import --label=" +
			"io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests -": ctr.Import{
			File:   "-",
			Pinned: true,
		},
		"-n k8s.io i import --platform linux/arm64 a.tar": ctr.Import{
			File:     "a.tar",
			Platform: "linux/arm64",
		},
		"--namespace=k8s.io images tag --force " + id + " docker.io/library/a:1": ctr.Tag{
			Image: id,
			Names: []string{"docker.io/library/a:1"},
			Force: true,
		},
		"-n=k8s.io image tag a:1 a:2 a:3": ctr.Tag{
			Image: "a:1",
			Names: []string{"a:2", "a:3"},
		},
		"--namespace=k8s.io images list -q": ctr.List{Quiet: true},
		"--namespace k8s.io images ls":      ctr.List{},
	} {
		got, err := ctr.Parse(strings.Fields(line), "")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ctr %s: %+v, %v; want %+v", line, got, err, want)
		}
	}

	// The environment may name the namespace.
	if _, err := ctr.Parse([]string{"images", "ls"}, "k8s.io"); err != nil {
		t.Error(err)
	}
}

func TestAllOtherCallsAreRefusedInOneLine(t *testing.T) {
	for line, want := range map[string]string{
		"":                                              "not served",
		"info":                                          `"info" is not served`,
		"version":                                       "not served",
		"--help":                                        "serves what kind calls",
		"--address /run/x images ls":                    "address",
		"-n k8s.io images":                              "not served",
		"-n k8s.io images pull a:1":                     `"images pull" is not served`,
		"-n k8s.io images rm a:1":                       "not served",
		"-n k8s.io containers ls":                       "not served",
		"-n k8s.io content fetch a:1":                   "not served",
		"images ls":                                     `namespace ""`,
		"-n default images ls":                          `namespace "default"`,
		"-n k8s.io images ls name==a":                   "filters",
		"-n k8s.io images tag a:1":                      "further name",
		"-n k8s.io images import":                       "one archive",
		"-n k8s.io images import a b":                   "one archive",
		"-n k8s.io images import --label a=b -":         "io.cri-containerd.pinned",
		"-n k8s.io images import --index-name x -":      "index-name",
		"-n k8s.io images import --snapshotter":         "snapshotter",
		"-n k8s.io images " + strings.Repeat("x", 9999): "not served",
	} {
		_, err := ctr.Parse(strings.Fields(line), "")
		if err == nil {
			t.Errorf("ctr %.100s: is served", line)
			continue
		}

		text := err.Error()
		if !strings.Contains(text, want) || !strings.Contains(text, "trivet-cri images does more") {
			t.Errorf("ctr %.100s: %s; want %q", line, text, want)
		}
		if strings.Contains(text, "\n") || len(text) > 400 {
			t.Errorf("ctr %.100s: an error of %d bytes: %.500s", line, len(text), text)
		}
	}
}

func TestConfigurationNamesTheSnapshotterWhereKindLooks(t *testing.T) {
	if err := ctr.CheckDump([]string{"config", "dump"}); err != nil {
		t.Error(err)
	}

	var config struct {
		Version int
		Plugins map[string]struct {
			Containerd struct{ Snapshotter string }
		}
	}
	if err := toml.Unmarshal([]byte(ctr.Config), &config); err != nil {
		t.Fatal(err)
	}

	got := config.Plugins["io.containerd.grpc.v1.cri"].Containerd.Snapshotter
	if config.Version != 2 || got != "overlayfs" {
		t.Errorf("version %d, snapshotter %q", config.Version, got)
	}
}

func TestContainerdDoesNothingElse(t *testing.T) {
	for _, line := range []string{"", "--version", "config", "config default", "config dump x"} {
		err := ctr.CheckDump(strings.Fields(line))
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("containerd %s: %v", line, err)
		}
	}
}

// Whatever a command line is, it is one of the calls or refused.
func FuzzParse(f *testing.F) {
	f.Add("--namespace=k8s.io\nimages\nimport\n--all-platforms\n-")
	f.Add("-n\nk8s.io\ni\ntag\n--force\na\nb")
	f.Fuzz(func(t *testing.T, lines string) {
		call, err := ctr.Parse(strings.Split(lines, "\n"), "")
		if (call == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", lines, call, err)
		}
	})
}
