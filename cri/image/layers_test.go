package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/registry"
)

// emptyLayers are layers in a directory of their own.
func emptyLayers(t *testing.T) *layers {
	t.Helper()
	dir := t.TempDir()
	l := newLayers(filepath.Join(dir, "layers"), filepath.Join(dir, "tmp"))
	for _, d := range []string{l.dir, l.tmp} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// unpacked makes a directory as a pull leaves it for commit, with a file of that name.
func (l *layers) unpacked(t *testing.T, name string) (temp string) {
	t.Helper()
	temp = filepath.Join(l.tmp, name)
	if err := os.MkdirAll(filepath.Join(temp, "fs", name), 0o755); err != nil {
		t.Fatal(err)
	}
	return temp
}

// put commits a layer, so that it is there and not held.
func (l *layers) put(t *testing.T, chain string) {
	t.Helper()
	l.hold("put", []string{chain})
	if err := l.commit(l.unpacked(t, chain), chain, layerInfo{Bytes: 10, Inodes: 1}); err != nil {
		t.Fatal(err)
	}
	l.drop("put")
}

// Two pulls can finish one layer: one that was cancelled when it had all of it, and the next.
func TestALayerThatIsThereIsNotReplaced(t *testing.T) {
	l := emptyLayers(t)
	l.hold("pull", []string{"chain"})
	for _, who := range []string{"first", "second"} {
		if err := l.commit(l.unpacked(t, who), "chain", layerInfo{Bytes: 1, Inodes: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(l.path("chain"), "first")); err != nil {
		t.Errorf("the layer that containers may use: %v", err)
	}
}

// A pull that was cancelled may have all of a layer only when what it left has been collected already.
func TestALayerThatNobodyNeedsIsNotKept(t *testing.T) {
	l := emptyLayers(t)
	if err := l.commit(l.unpacked(t, "late"), "chain", layerInfo{}); err == nil || l.has("chain") {
		t.Errorf("error %v, kept %t", err, l.has("chain"))
	}
}

func TestALayerDamagedByAPowerLossIsReplaced(t *testing.T) {
	l := emptyLayers(t)
	if err := os.MkdirAll(filepath.Join(l.dir, "chain", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.put(t, "chain")
	if _, err := os.Stat(filepath.Join(l.dir, "chain", "half")); err == nil {
		t.Error("the damaged layer is still there")
	}
}

func TestWaitersHearOfEachLayerThatArrives(t *testing.T) {
	l := emptyLayers(t)
	for _, chain := range []string{"one", "two"} {
		arrived := l.arrived
		l.put(t, chain)
		select {
		case <-arrived:
		default:
			t.Errorf("nobody was woken by layer %s", chain)
		}
	}
}

func TestCollectKeepsWhatImagesAndHoldersNeed(t *testing.T) {
	l := emptyLayers(t)
	for _, chain := range []string{"ofImage", "held", "heldTwice", "unneeded"} {
		l.put(t, chain)
	}

	l.hold("container", []string{"held", "heldTwice"})
	l.hold("export", []string{"heldTwice"})

	collect := func() (left []string) {
		t.Helper()
		trash, err := l.collect(map[string]bool{"ofImage": true})
		if err != nil {
			t.Fatal(err)
		}

		for _, dir := range trash {
			if !strings.HasPrefix(dir, l.tmp+"/") {
				t.Errorf("unneeded layers are in %s, want them below %s", dir, l.tmp)
			}
		}

		entries, err := os.ReadDir(l.dir)
		if err != nil {
			t.Fatal(err)
		}

		for _, e := range entries {
			left = append(left, e.Name())
		}

		return left
	}

	if left := collect(); !slices.Equal(left, []string{"held", "heldTwice", "ofImage"}) || l.has("unneeded") {
		t.Errorf("left are %v", left)
	}
	if !l.drop("container") || l.drop("container") {
		t.Error("a hold ends once")
	}
	if left := collect(); !slices.Equal(left, []string{"heldTwice", "ofImage"}) {
		t.Errorf("after the container is gone: %v", left)
	}
	if bytes, inodes := l.usage(); bytes != 20 || inodes != 2 {
		t.Errorf("usage %d bytes, %d inodes; want those of two layers", bytes, inodes)
	}
}

// openEmpty opens a store without images.
func openEmpty(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), Registry: registry.NewClient(registry.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// An image may be removed and pulled again while its first sync is under way, which then says nothing about
// the new layers.
func TestTheSyncOfARemovedImageDoesNotCountForTheNextOne(t *testing.T) {
	x := openEmpty(t).images
	first, _, err := x.add(&record{ID: "sha256:aa", Config: []byte("{}")}, names{})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.remove(first); err != nil {
		t.Fatal(err)
	}

	again, isNew, err := x.add(&record{ID: "sha256:aa", Config: []byte("{}")}, names{})
	if err != nil || !isNew {
		t.Fatalf("added again: new %t, %v", isNew, err)
	}

	for _, c := range []struct {
		of   string
		sync *record
		want bool
	}{{"the first", first, false}, {"the second", again, true}} {
		if err := x.setSynced(c.sync); err != nil {
			t.Fatal(err)
		}
		if got := x.find("sha256:aa"); got != nil && got.Synced != c.want {
			t.Errorf("after the sync of %s pull: safe %t, want %t", c.of, got.Synced, c.want)
		}
	}
}

func TestATagBelongsToTheImageThatGotItLast(t *testing.T) {
	s := openEmpty(t)
	for _, id := range []string{"sha256:aa", "sha256:bb"} {
		err := s.add(&record{ID: id, Config: []byte("{}")}, names{
			tags:    []string{"docker.io/library/a:1"},
			digests: []string{"docker.io/library/a@sha256:" + strings.Repeat(id[7:], 32)},
		}, s.syncLater)
		if err != nil {
			t.Fatal(err)
		}
	}

	if img, err := s.Get("a:1"); err != nil || img.ID != "sha256:bb" {
		t.Errorf("a:1 is %s, %v; want the later image", img.ID, err)
	}
	if img, err := s.Get("a@sha256:" + strings.Repeat("aa", 32)); err != nil || len(img.Tags) != 0 {
		t.Errorf("the earlier image: %+v, %v; want it without a tag", img.Tags, err)
	}
}

func TestAnImageIsFoundByTheUniqueBeginningOfItsID(t *testing.T) {
	x := openEmpty(t).images
	for _, id := range []string{"sha256:1111111aa", "sha256:1111111ab", "sha256:2222222cc"} {
		if _, _, err := x.add(&record{ID: id, Config: []byte("{}")}, names{}); err != nil {
			t.Fatal(err)
		}
	}

	for text, want := range map[string]string{
		"1111111aa":        "sha256:1111111aa",
		"sha256:1111111ab": "sha256:1111111ab",
		"2222222":          "sha256:2222222cc",
		"sha256:2222222c":  "sha256:2222222cc",
		"1111111":          "",
		"222222":           "",
		"2222222cd":        "",
	} {
		got := ""
		if r := x.find(text); r != nil {
			got = r.ID
		}
		if got != want {
			t.Errorf("%s finds %q, want %q", text, got, want)
		}
	}
}

func TestRecordsOfAnotherBootCountOnlyOnceSynced(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}

	for _, r := range []*record{
		{ID: "sha256:aa", Config: []byte("{}"), Boot: "an earlier one", Synced: true},
		{ID: "sha256:bb", Config: []byte("{}"), Boot: "an earlier one"},
		{ID: "sha256:cc", Config: []byte("{}"), Boot: s.images.boot},
		{ID: "sha256:dd", Config: []byte("{}"), Boot: s.images.boot, Chain: []string{"missing"}},
	} {
		if err := s.images.put(r); err != nil {
			t.Fatal(err)
		}
	}

	s.Close()

	again, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()

	if ids := again.images.ids(); !slices.Equal(ids, []string{"sha256:aa", "sha256:cc"}) {
		t.Errorf("after a restart there are %v", ids)
	}
}

// Syncs that an earlier process has not completed start with the store, and may end while it still starts
// others.
func TestSyncsThatWereCutShortAreCompletedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}

	for i := range 200 {
		r := &record{ID: fmt.Sprintf("sha256:%064x", i), Config: []byte("{}"), Boot: s.images.boot}
		if err := s.images.put(r); err != nil {
			t.Fatal(err)
		}
	}

	s.Close()

	again, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}

	again.Close()
	for _, r := range again.images.byID {
		if !r.Synced {
			t.Fatalf("image %s is not synced after the store was closed", r.ID)
		}
	}
}
