package csivolume

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/node/csivolume/staging"
)

// placeOf is the place of the volume pv of the pod u, below a directory of the test.
func placeOf(t *testing.T, root, handle string, block bool) place {
	t.Helper()
	return layout{root}.place("u", "pv", "d", handle, block)
}

func isDone(t *testing.T, p place, boot string) bool {
	t.Helper()
	done, err := p.done(boot)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestAVolumeIsDoneInTheBootInWhichItWasFinished(t *testing.T) {
	for _, block := range []bool{false, true} {
		p := placeOf(t, t.TempDir(), "handle", block)
		if isDone(t, p, "boot-1") {
			t.Errorf("block %v: done without a record", block)
		}

		if err := p.begin("n"); err != nil {
			t.Fatal(err)
		}
		if isDone(t, p, "boot-1") {
			t.Errorf("block %v: done when it has only begun", block)
		}

		if err := p.finish("boot-1"); err != nil {
			t.Fatal(err)
		}
		if !isDone(t, p, "boot-1") || isDone(t, p, "boot-2") {
			t.Errorf("block %v: want it done in its boot and in no other", block)
		}

		if err := remove(&p); err != nil || isDone(t, p, "boot-1") {
			t.Errorf("block %v: done after it was removed, error %v", block, err)
		}
	}
}

func TestADirectoryWithTheRecordOfAnotherVolumeIsRefused(t *testing.T) {
	root := t.TempDir()
	p := placeOf(t, root, "handle", false)
	if err := p.begin("n"); err != nil {
		t.Fatal(err)
	}

	another := placeOf(t, root, "another", false)
	_, err := another.done("boot")
	if err == nil || !strings.Contains(err.Error(), "belongs to volume handle") {
		t.Errorf("error %v", err)
	}
}

func TestALinkIsOfTheVolumeThatTheRecordsName(t *testing.T) {
	for _, kubelets := range []bool{false, true} {
		root := t.TempDir()
		p := placeOf(t, root, "handle", true)
		if err := p.begin("n"); err != nil {
			t.Fatal(err)
		}
		if kubelets {
			if err := os.Remove(p.readyFile()); err != nil {
				t.Fatal(err)
			}
		}

		another := placeOf(t, root, "another", true)
		for want, s := range map[bool]staging.Place{true: p.staging, false: another.staging} {
			used, err := layout{root}.used(s)
			if used != want || err != nil {
				t.Errorf("volume %s: used %v, error %v, want %v", s.Handle, used, err, want)
			}
		}
		if err := another.begin("n"); !errors.Is(err, staging.ErrTaken) {
			t.Errorf("the place of another volume: %v", err)
		}
	}
}

// kubelet reads the files as maps of strings.
func TestRecordsAreKubelets(t *testing.T) {
	p := placeOf(t, t.TempDir(), "handle", false)
	if err := p.begin("n"); err != nil {
		t.Fatal(err)
	}
	if err := p.finish("boot"); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(filepath.Join(p.dir, "vol_data.json"))
	if err != nil {
		t.Fatal(err)
	}

	var fields map[string]string
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["specVolID"] != "pv" || fields["volumeHandle"] != "handle" || fields["driverName"] != "d" ||
		fields["nodeName"] != "n" || fields["attachmentID"] != attachmentName("handle", "d", "n") {
		t.Errorf("fields %v", fields)
	}
}
