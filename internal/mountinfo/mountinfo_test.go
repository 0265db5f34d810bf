package mountinfo_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

func TestLinesAreRead(t *testing.T) {
	const table = `22 27 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
36 35 98:0 /mnt1 /a\040b\134c\011 rw,noatime master:1 propagate_from:2 - ext4 /dev/root rw,errors=continue
40 35 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw
short line
41 35 0:5 / /no-separator rw nsfs nsfs rw
42 35 0:6 / /odd\09\400 rw - tmpfs none rw,size=1k
`

	want := []mountinfo.Mount{
		{
			ID:      "22",
			Parent:  "27",
			Peers:   "12",
			Root:    "/",
			Point:   "/proc",
			Device:  "0:20",
			FSType:  "proc",
			Source:  "proc",
			Options: "rw",
		},
		{
			ID:      "36",
			Parent:  "35",
			Root:    "/mnt1",
			Point:   "/a b\\c\t",
			Device:  "98:0",
			FSType:  "ext4",
			Source:  "/dev/root",
			Options: "rw,errors=continue",
		},
		{
			ID:      "40",
			Parent:  "35",
			Root:    "net:[4026531840]",
			Point:   "/run/netns/x",
			Device:  "0:4",
			FSType:  "nsfs",
			Source:  "nsfs",
			Options: "rw",
		},
		{
			ID:      "42",
			Parent:  "35",
			Root:    "/",
			Point:   `/odd\09\400`,
			Device:  "0:6",
			FSType:  "tmpfs",
			Source:  "none",
			Options: "rw,size=1k",
		},
	}
	if got := mountinfo.Parse(table); !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
}

// An image may have 500 layers, each a directory of a long name.
func TestLinesHaveNoBound(t *testing.T) {
	options := "ro" + strings.Repeat(",lowerdir+=/var/lib/"+strings.Repeat("x", 200), 500)
	table := "1 2 0:50 / /overlay rw - overlay overlay " + options + "\n2 1 0:51 / /after rw - tmpfs " +
		"tmpfs rw\n"
	got := mountinfo.Parse(table)
	if len(got) != 2 || got[0].Options != options || got[1].Point != "/after" {
		t.Errorf("%d mounts of 2", len(got))
	}
}

func TestTablesOfProcesses(t *testing.T) {
	own, err := mountinfo.Self()
	if err != nil || len(own) == 0 {
		t.Fatalf("%d mounts, %v", len(own), err)
	}
	same, err := mountinfo.Of(os.Getpid())
	if err != nil || len(same) == 0 {
		t.Errorf("by its ID: %d mounts, %v", len(same), err)
	}
	if _, err := mountinfo.Of(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that is not there: %v", err)
	}
}

// What the kernel escapes comes back as it was.
func FuzzNames(f *testing.F) {
	f.Add("/plain", "rw")
	f.Add("/a b\\c\n\t#040", "rw,x=\\y z")
	kernel := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`)
	f.Fuzz(func(t *testing.T, point, options string) {
		line := fmt.Sprintf("1 2 0:3 / %s rw - tmpfs none %s\n",
			kernel.Replace(point), kernel.Replace(options))
		got := mountinfo.Parse(line)
		if len(got) != 1 || got[0].Point != point || got[0].Options != options {
			t.Errorf("%q and %q became %q", point, options, got)
		}
	})
}
