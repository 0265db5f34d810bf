package attach_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/volume"
)

func open(t *testing.T, dir string) *attach.Attachments {
	t.Helper()
	a, unreadable, err := attach.Open(dir, 2)
	if err != nil || len(unreadable) > 0 {
		t.Fatalf("%v, %v", unreadable, err)
	}
	return a
}

func TestAttachedVolumesAreRememberedUntilTheyAreDetached(t *testing.T) {
	dir := t.TempDir()
	a, ctx := open(t, dir), t.Context()
	readOnly := attach.How{ReadOnly: true}
	for _, c := range []struct {
		id   string
		how  attach.How
		want error
	}{
		{"vol-1", readOnly, nil},
		{"vol-1", readOnly, nil},
		{"vol-1", attach.How{}, volume.ErrConflict},
		{"../x", attach.How{}, volume.ErrInvalid},
		{"vol-2", attach.How{}, nil},
		{"vol-3", attach.How{}, volume.ErrFull},
	} {
		if err := a.Attach(ctx, c.id, c.how); !errors.Is(err, c.want) {
			t.Errorf("%s %+v: %v, want %v", c.id, c.how, err, c.want)
		}
	}

	a = open(t, dir)
	if how, ok := a.Of("vol-1"); !ok || how != readOnly {
		t.Errorf("after a restart %+v, %t", how, ok)
	}
	for range 2 {
		if err := errors.Join(a.Detach(ctx, "vol-1"), a.Detach(ctx, "../x")); err != nil {
			t.Error(err)
		}
	}
	if err := a.Attach(ctx, "vol-3", attach.How{}); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
	if _, ok := open(t, dir).Of("vol-1"); ok {
		t.Error("a volume that was detached is attached after a restart")
	}
}

func TestUnreadableRecordIsSetAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vol-1.json"), []byte(`{"read`), 0o600); err != nil {
		t.Fatal(err)
	}
	a, unreadable, err := attach.Open(dir, 0)
	if err != nil || len(unreadable) != 1 {
		t.Fatalf("%v, %v", unreadable, err)
	}
	if _, ok := a.Of("vol-1"); ok {
		t.Error("the volume is attached")
	}
}
