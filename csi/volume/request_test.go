package volume

import (
	"errors"
	"math"
	"testing"
)

func TestIDsAreStableAndSafe(t *testing.T) {
	const uid = "pvc-0dc44c05-3185-48a8-a43b-00388d2f8992"
	if ID(uid) != uid {
		t.Errorf("ID(%s) = %s", uid, ID(uid))
	}

	for _, name := range []string{
		"x", "../../etc/passwd", "pvc-0dc44c05", uid + "x", "ü", "a/b", string(make([]byte, 128)),
	} {
		id := ID(name)
		if err := CheckID(id); err != nil || id != ID(name) || id == name {
			t.Errorf("ID(%q) = %s, %v", name, id, err)
		}
	}
}

func FuzzID(f *testing.F) {
	f.Add("pvc-0dc44c05-3185-48a8-a43b-00388d2f8992")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if err := CheckID(ID(name)); err != nil {
			t.Error(err)
		}
	})
}

func TestSizes(t *testing.T) {
	const mib = 1 << 20
	cases := []struct {
		required, limit, want int64
		err                   error
	}{
		{0, 0, defaultSize, nil},
		{1, 0, mib, nil},
		{mib, mib, mib, nil},
		{mib + 1, 0, 2 * mib, nil},
		{mib + 1, mib + 2, 0, ErrSize},
		{0, 5 * mib, 5 * mib, nil},
		{0, mib - 1, 0, ErrSize},
		{2, 1, 0, ErrInvalid},
		{-1, 0, 0, ErrInvalid},
		{math.MaxInt64, 0, 0, ErrSize},
	}

	for _, c := range cases {
		got, err := Request{Required: c.required, Limit: c.limit}.size()
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("size(%d, %d) = %d, %v; want %d, %v", c.required, c.limit, got, err, c.want, c.err)
		}
	}
}

// The blocks of a file system may be read; what a pod has written as blocks is never mounted.
func TestImageOfAFileSystemIsCopiedAsADevice(t *testing.T) {
	image := Spec{Access: Filesystem, FSType: "xfs", Pooled: true}
	for _, c := range []struct {
		name    string
		source  Spec
		request Request
		want    string // the file system
		err     error
	}{
		{"as it is", image, Request{Access: Filesystem}, "xfs", nil},
		{"its blocks", image, Request{Access: Block}, "", nil},
		{"a snapshot", image, Request{Snapshot: true}, "xfs", nil},
		{"of a subvolume", Spec{Access: Filesystem, FSType: "btrfs"}, Request{Access: Block}, "", ErrInvalid},
		{"mounted blocks", Spec{Access: Block, Pooled: true}, Request{Access: Filesystem}, "", ErrInvalid},
	} {
		got, err := c.request.of(c.source)
		if !errors.Is(err, c.err) || err == nil && got.FSType != c.want {
			t.Errorf("%s: file system %q, %v", c.name, got.FSType, err)
		}
	}
}
