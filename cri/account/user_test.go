package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

func imageRoot(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUserIsLookedUpInTheImage(t *testing.T) {
	root := imageRoot(t)
	write(t, root+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n")
	write(t, root+"/etc/group", "root:x:0:\nweb:x:34:\nlogs:x:50:web\nten:x:10:root\n")
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	type security = runtimeapi.LinuxContainerSecurityContext
	for _, c := range []struct {
		name, image string
		security    *security
		uid, gid    uint32
		groups      []uint32
		home        string
	}{
		{"root when nobody says otherwise", "", nil, 0, 0, []uint32{0, 10}, "/root"},
		{"the image's, by name", "web", nil, 33, 34, []uint32{34, 50}, "/srv"},
		{"the image's, by number and group", "33:ten", nil, 33, 10, []uint32{10}, "/srv"},
		{"the container's over the image's", "web", &security{RunAsUser: id(7)}, 7, 0, []uint32{0}, "/"},
		{"by name, with a group", "", &security{RunAsUsername: "web", RunAsGroup: id(5)},
			33, 5, []uint32{5}, "/srv"},
		{"supplemental groups are added", "web", &security{SupplementalGroups: []int64{60, 50}},
			33, 34, []uint32{34, 50, 60}, "/srv"},
		{"strict groups leave the image's out", "web", &security{
			SupplementalGroups:       []int64{60},
			SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict,
		}, 33, 34, []uint32{34, 60}, "/srv"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := Resolve(root, c.image, c.security)
			if err != nil {
				t.Fatal(err)
			}
			if u.UID != c.uid || u.GID != c.gid || u.Home != c.home {
				t.Errorf("got %d:%d %s, want %d:%d %s", u.UID, u.GID, u.Home, c.uid, c.gid, c.home)
			}
			if diff := cmp.Diff(c.groups, u.AdditionalGids); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}

	_, err := Resolve(root, "nobody-here", nil)
	if err == nil || !strings.Contains(err.Error(), "nobody-here") {
		t.Errorf("error %v does not name the user", err)
	}
	if _, err := Resolve(root, "", &security{RunAsGroup: id(5)}); err == nil {
		t.Error("a group without a user was accepted")
	}
	if u, err := Resolve(t.TempDir(), "12:13", nil); err != nil || u.UID != 12 || u.GID != 13 {
		t.Errorf("an image without passwd: %+v, %v", u, err)
	}
}

// CVE-2026-47262's class: the file compresses to nothing and was held as millions of objects.
func TestAccountFilesOfAnImageAreBounded(t *testing.T) {
	for _, name := range []string{"passwd", "group"} {
		root := imageRoot(t)
		write(t, root+"/etc/passwd", "web:x:33:34:web:/srv:/bin/sh\n")
		write(t, root+"/etc/"+name, "")
		if err := os.Truncate(root+"/etc/"+name, 1<<40); err != nil {
			t.Fatal(err)
		}

		if _, err := Resolve(root, "web", nil); !errors.Is(err, boundedfile.ErrTooLarge) ||
			!strings.Contains(err.Error(), "/etc/"+name) {
			t.Errorf("error %v does not name /etc/%s and its size", err, name)
		} else if strings.Contains(err.Error(), root) {
			t.Errorf("error %v has the mount's path: each event of the pod is another one", err)
		}
	}
}

func TestNumberOfGroupsIsBounded(t *testing.T) {
	root := imageRoot(t)
	write(t, root+"/etc/passwd", "web:x:33:34:web:/srv:/bin/sh\n")
	var group strings.Builder
	for i := range maxGroups + 1 {
		fmt.Fprintf(&group, "g%d:x:%d:web\n", i, i+1000)
	}

	write(t, root+"/etc/group", group.String())
	if _, err := Resolve(root, "web", nil); err == nil || !strings.Contains(err.Error(), "groups") {
		t.Errorf("error %v, want a refusal of more groups than the kernel takes", err)
	}

	if _, err := Resolve(root, "web", &runtimeapi.LinuxContainerSecurityContext{
		SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict,
	}); err != nil {
		t.Errorf("groups that are not merged: %v", err)
	}
}

// A number that overflows must not come out as another one, least of all as root (CVE-2024-40635's class).
func TestIDsOutOfRangeAreRefused(t *testing.T) {
	root := imageRoot(t)
	write(t, root+"/etc/passwd", "wrap:x:4294967296:1::/:\nmax:x:2147483648:1::/:\ngid:x:1:4294967296::/:\n"+
		"word:x:abc:1::/:\nempty:x::1::/:\nminus:x:-1:1::/:\nfine:x:7:8::/:\n")
	write(t, root+"/etc/group", "wrap:x:4294967296:\nfine:x:9:\nmine:x:4294967296:seven\n")
	id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
	for _, user := range []string{
		"wrap", "max", "gid", "word", "empty", "minus", "fine:wrap", "fine:4294967296",
		"4294967296", "2147483648", "-1", "99999999999999999999",
	} {
		if u, err := Resolve(root, user, nil); err == nil {
			t.Errorf("user %q is %d:%d", user, u.UID, u.GID)
		}
	}

	for _, asked := range []*runtimeapi.LinuxContainerSecurityContext{
		{RunAsUser: id(1 << 32)},
		{RunAsUser: id(-1)},
		{RunAsUser: id(1), RunAsGroup: id(1 << 32)},
		{RunAsUser: id(1), SupplementalGroups: []int64{1 << 32}},
		{RunAsUser: id(1), SupplementalGroups: []int64{-1}},
	} {
		if u, err := Resolve(root, "", asked); err == nil {
			t.Errorf("%v is %d:%d %v", asked, u.UID, u.GID, u.AdditionalGids)
		}
	}

	if u, err := Resolve(root, "fine:fine", nil); err != nil || u.UID != 7 || u.GID != 9 {
		t.Errorf("beside broken lines: %+v, %v", u, err)
	}
}

// CVE-2016-3697's class: runAsUser 1000 must not become the user that an image calls 1000.
func TestNumberIsNeverAName(t *testing.T) {
	root := imageRoot(t)
	write(t, root+"/etc/passwd", "1000:x:0:0:evil:/root:/bin/sh\n")
	write(t, root+"/etc/group", "50:x:0:\n")
	u, err := Resolve(root, "", &runtimeapi.LinuxContainerSecurityContext{
		RunAsUser: &runtimeapi.Int64Value{Value: 1000},
	})
	if err != nil || u.UID != 1000 {
		t.Errorf("runAsUser 1000 is %+v, %v", u, err)
	}
	if u, err = Resolve(root, "1000:50", nil); err != nil || u.UID != 1000 || u.GID != 50 {
		t.Errorf("1000:50 is %+v, %v", u, err)
	}
}

// What an image calls passwd may be a FIFO, which nobody ever writes to, or a link to a file of the host.
func TestHostilePasswdIsNotOpened(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	write(t, outside, "evil:x:666:666::/:/bin/sh\n")
	for _, name := range []string{"passwd", "group"} {
		root := imageRoot(t)
		if err := unix.Mkfifo(filepath.Join(root, "etc", name), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Resolve(root, "web", nil); err == nil || !strings.Contains(err.Error(), "/etc/"+name) {
			t.Errorf("error %v does not name /etc/%s", err, name)
		}
	}

	root := imageRoot(t)
	if err := os.Symlink(outside, root+"/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if u, err := Resolve(root, "evil", nil); err == nil {
		t.Errorf("a user of the host's file was found: %+v", u)
	}
}

func FuzzAccountFiles(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), []byte("root:x:0:web,root\n"), "root")
	f.Add([]byte("a:b:1:2\n:::\n"), []byte("\xff:x:1"), "1")
	f.Fuzz(func(t *testing.T, passwd, group []byte, name string) {
		who, ok, err := findAccount(passwd, name)
		if _, isNumber, _ := numeric(name); ok && err == nil && !isNumber && who.name != name {
			t.Errorf("asked for %q, found %+v", name, who)
		}
		findGroup(group, name)
		groupsOf(group, name)
	})
}
