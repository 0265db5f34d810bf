package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

var ran = regexp.MustCompile(`Ran (\d+) of \d+ Specs`)

// TestSanity runs csi-sanity, in a process of its own for each kind of volume, as Ginkgo wants it.
func TestSanity(t *testing.T) {
	testenv.Root(t)
	for _, access := range []string{"mount", "block"} {
		t.Run(access, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSanityOfOneKind$", "-test.v")
			cmd.Env = append(os.Environ(), "SANITY_ACCESS="+access)
			out, err := cmd.CombinedOutput()
			if err != nil || ran.FindSubmatch(out) == nil {
				t.Fatalf("%v\n%s", err, out)
			}

			t.Logf("%s", ran.Find(out))
		})
	}
}

func TestSanityOfOneKind(t *testing.T) {
	access := os.Getenv("SANITY_ACCESS")
	if access == "" {
		t.Skip("run by TestSanity")
	}

	dir := t.TempDir()
	store, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}

	socket := filepath.Join(dir, "csi.sock")
	l, err := listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}

	d := &driver{
		name:    "hostpath.csi.k8s.io",
		node:    "node1",
		modify:  true,
		attach:  true,
		mutable: []string{"e2eVacTest"},
		store:   store,
	}

	server := d.server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
		if len(store.Volumes)+len(store.Snapshots)+len(d.devices) > 0 {
			t.Errorf("left: %v, %v, %v", store.Volumes, store.Snapshots, d.devices)
		}
	})

	config := sanity.NewTestConfig()
	config.Address = "unix://" + socket
	config.TargetPath = filepath.Join(dir, "pub")
	config.StagingPath = filepath.Join(dir, "stage")
	config.TestVolumeAccessType = access
	config.TestVolumeSize = 8 << 20
	config.TestVolumeExpandSize = 16 << 20
	config.TestVolumeMutableParameters = map[string]string{"e2eVacTest": "test"}
	sanity.Test(t, config)
}
