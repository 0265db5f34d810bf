package ipam_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
)

// "a.b" with "c" and "a" with "b.c" read alike with a dot between them.
func TestOwnersWhoseNamesReadAlikeAreTwo(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	sets := []ipam.Set{set(t, "10.1.0.0/29")}
	owners := []ipam.Owner{{ContainerID: "a.b", IfName: "c"}, {ContainerID: "a", IfName: "b.c"}}
	for _, o := range owners {
		if _, err := p.Allocate(o, sets, nil); err != nil {
			t.Fatal(err)
		}
	}

	for _, o := range owners {
		if held, err := p.Find(o); err != nil || len(held) != 1 {
			t.Errorf("%s holds %v, %v", o, held, err)
		}
		if err := p.Release(o); err != nil {
			t.Error(err)
		}
	}

	if free, held, err := p.Free(sets[0], 10); free != 5 || held != 0 || err != nil {
		t.Errorf("%d free, %d held, %v", free, held, err)
	}
}

func TestLongNamesOfOwnersHaveAnIndexEntry(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	keep := ipam.Owner{ContainerID: strings.Repeat("k", 250), IfName: "eth0.100"}
	drop := ipam.Owner{ContainerID: strings.Repeat("k", 250), IfName: "eth0.101"}
	for _, o := range []ipam.Owner{keep, drop} {
		if _, err := p.Allocate(o, []ipam.Set{set(t, "10.1.0.0/24")}, nil); err != nil {
			t.Fatal(err)
		}
	}

	if err := p.Keep(func(o ipam.Owner) bool { return o == keep }); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "net", ".by-id")); err != nil || len(entries) != 1 {
		t.Errorf("index after GC: %v, %v", entries, err)
	}
	if held, err := p.Find(keep); err != nil || len(held) != 1 {
		t.Errorf("kept %v, %v", held, err)
	}
	if keep.Label() == drop.Label() || len(keep.Label()) > 120 {
		t.Errorf("labels %s, %s", keep.Label(), drop.Label())
	}
}

// Version 0.1 had a dot in the index entry. Its reservations are found, and its entries go.
func TestIndexOfAnEarlierVersionIsReplaced(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	o := owner(1)
	leases, err := p.Allocate(o, []ipam.Set{set(t, "10.1.0.0/24")}, nil)
	if err != nil {
		t.Fatal(err)
	}

	index := filepath.Join(dir, "net", ".by-id")
	if err := os.Rename(filepath.Join(index, "pod-1:eth0"), filepath.Join(index, "pod-1.eth0")); err != nil {
		t.Fatal(err)
	}
	if held, err := p.Find(o); err != nil || len(held) != 1 || held[0] != leases[0].Address {
		t.Errorf("held %v, %v", held, err)
	}
	if err := p.Release(o); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(index); err != nil || len(entries) != 0 {
		t.Errorf("index %v, %v", entries, err)
	}
}

func TestNetworkThatNeverWasHasNoPoolAndMakesNoDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		p, err := ipam.Location{DataDir: path, Network: "net", BootScoped: true}.Open()
		if p != nil || err != nil {
			t.Errorf("%+v, %v", p, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("made %v, %v", entries, err)
	}
}
