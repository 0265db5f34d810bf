package target

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOptionsGoToThoseWhoUnderstandThem(t *testing.T) {
	const noatime = unix.MOUNT_ATTR_NOATIME
	for _, c := range []struct {
		options  string
		readOnly bool
		set      uint64
		fs       []string
	}{
		{"", false, 0, nil},
		{"ro,noatime", true, noatime, nil},
		{"noatime,discard,commit=60,,defaults", false, noatime, []string{"discard", "commit=60"}},
		{"_netdev,noauto,nofail,user,x-systemd.requires=a,comment=b,nouuid", false, 0, []string{"nouuid"}},
	} {
		o := ParseOptions([]string{c.options})
		if o.ReadOnly != c.readOnly || o.attributes.set != c.set || !slices.Equal(o.FS, c.fs) {
			t.Errorf("%q became %+v", c.options, o)
		}
	}
}

func TestTheLastOfContradictingOptionsCounts(t *testing.T) {
	const readOnly, nodev = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NODEV
	for _, c := range []struct {
		options []string
		had     uint64 // attributes of the mount before
		want    uint64
	}{
		{[]string{"ro,rw"}, 0, 0},
		{[]string{"ro", "rw"}, readOnly, 0},
		{[]string{"rw,ro"}, 0, readOnly},
		{[]string{"nodev,dev"}, nodev, 0},
		{[]string{"dev,nodev"}, 0, nodev},
		{[]string{"strictatime,noatime"}, unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR_NOATIME},
		{[]string{"noatime,relatime"}, 0, unix.MOUNT_ATTR_RELATIME},
	} {
		if got := apply(c.had, ParseOptions(c.options)); got != c.want {
			t.Errorf("%q on %#x gave %#x, want %#x", c.options, c.had, got, c.want)
		}
	}
}

// apply does what mount_setattr(2) does.
func apply(mount uint64, o Options) uint64 {
	a := o.all()
	return mount&^a.clear | a.set
}

// A list of options does what its halves do one after the other.
func FuzzOptions(f *testing.F) {
	f.Add("ro,noatime,x=y", "rw,strictatime,y", uint64(unix.MOUNT_ATTR_NODEV))
	f.Add("nodev,_netdev", "dev,discard", uint64(0))
	f.Fuzz(func(t *testing.T, first, second string, mount uint64) {
		both := ParseOptions([]string{first, second})
		a, b := ParseOptions([]string{first}), ParseOptions([]string{second})
		if want := apply(apply(mount, a), b); apply(mount, both) != want {
			t.Errorf("on %#x: %#x, one after the other %#x", mount, apply(mount, both), want)
		}

		given := strings.Split(first+","+second, ",")
		for _, option := range both.FS {
			if !slices.Contains(given, option) || byOption[option] != (attributes{}) || isDropped(option) {
				t.Errorf("option %q of %q is given to the file system", option, given)
			}
		}

		if !slices.Equal(both.FS, slices.Concat(a.FS, b.FS)) {
			t.Errorf("options %q, one after the other %q and %q", both.FS, a.FS, b.FS)
		}
	})
}
