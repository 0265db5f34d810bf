// Package account finds the user and groups that a container runs as: those that it asks for, or its image
// does, by the image's own passwd(5) and group(5). The author of the image may be hostile: files are read up
// to a limit and never outside the root file system, and a number is never a name.
package account

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// User is the user that a container runs as, with its groups.
type User struct {
	specs.User

	// Home is its home directory; "/" if it has none.
	Home string
}

// maxImageFile is the size in bytes up to which a file of an image is read.
const maxImageFile = 10 << 20

// Resolve finds the user in the image's passwd and group files, below rootfs: the one that the container asks
// for, else imageUser, USER[:GROUP] of the image's configuration. A number needs no entry; root is the user
// if nothing is asked for.
func Resolve(rootfs, imageUser string, security *runtimeapi.LinuxContainerSecurityContext) (User, error) {
	requested, err := requestedUser(imageUser, security)
	if err != nil {
		return User{}, err
	}

	passwd, err := readImageFile(rootfs, "/etc/passwd")
	if err != nil {
		return User{}, err
	}

	group, err := readImageFile(rootfs, "/etc/group")
	if err != nil {
		return User{}, err
	}

	name, groupName, _ := strings.Cut(requested, ":")
	who, err := accountOf(passwd, name)
	if err != nil {
		return User{}, err
	}

	// Only a user without a group of its own choice gets those that the image makes it a member of.
	var members []uint32
	merge := security.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge
	switch {
	case groupName != "":
		gid, ok, err := findGroup(group, groupName)
		if err != nil {
			return User{}, err
		}
		if !ok {
			return User{}, fmt.Errorf("group %q: not in /etc/group of the image", groupName)
		}

		who.gid = gid

	case who.name != "" && merge:
		if members, err = groupsOf(group, who.name); err != nil {
			return User{}, err
		}
	}

	u := User{User: specs.User{UID: who.uid, GID: who.gid}, Home: who.home}
	u.AdditionalGids, err = allGroups(who.gid, members, security.GetSupplementalGroups())
	return u, err
}

// accountOf returns the entry of a user, one without a name for a number that has none. An empty name is
// root.
func accountOf(passwd []byte, name string) (entry, error) {
	if name == "" {
		name = "0"
	}

	who, ok, err := findAccount(passwd, name)
	if err != nil {
		return entry{}, err
	}

	if !ok {
		uid, isNumber, err := numeric(name)
		if err != nil {
			return entry{}, err
		}
		if !isNumber {
			return entry{}, fmt.Errorf("user %q: not in /etc/passwd of the image", name)
		}

		who = entry{uid: uid}
	}

	if who.home == "" {
		who.home = "/"
	}

	return who, nil
}

// allGroups returns all groups, each once, the primary one first.
func allGroups(gid uint32, members []uint32, requested []int64) ([]uint32, error) {
	all := []uint32{gid}
	seen := map[uint32]bool{gid: true}
	add := func(g uint32) {
		if !seen[g] {
			seen[g] = true
			all = append(all, g)
		}
	}

	for _, g := range members {
		add(g)
	}

	for _, g := range requested {
		if g < 0 || g > math.MaxInt32 {
			return nil, fmt.Errorf("supplemental group %d is not between 0 and %d", g, math.MaxInt32)
		}

		add(uint32(g))
	}

	if len(all) > maxGroups {
		return nil, fmt.Errorf("%d groups are more than the kernel's %d", len(all), maxGroups)
	}

	return all, nil
}

// requestedUser returns USER[:GROUP], each a name or a number; empty if nothing is asked for.
func requestedUser(imageUser string, security *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	name := ""
	switch {
	case security.GetRunAsUser() != nil:
		name = strconv.FormatInt(security.GetRunAsUser().Value, 10)
	case security.GetRunAsUsername() != "":
		name = security.GetRunAsUsername()
	}

	if g := security.GetRunAsGroup(); g != nil {
		if name == "" {
			return "", errors.New("run_as_group is set without run_as_user or run_as_username")
		}

		return name + ":" + strconv.FormatInt(g.Value, 10), nil
	}

	if name != "" {
		return name, nil
	}

	return strings.TrimSpace(imageUser), nil
}

// readImageFile reads a file of an image. It returns nil if the file does not exist.
func readImageFile(rootfs, path string) ([]byte, error) {
	handle, err := pathrs.OpenInRoot(rootfs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	defer handle.Close()

	// This is checked before the file is opened: that would wait for the writer of a FIFO, and some devices
	// do something when they are opened.
	if info, err := handle.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s of the image is not a regular file", path)
	}

	f, err := pathrs.Reopen(handle, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	defer f.Close()

	data, err := boundedfile.Contents(f, maxImageFile)
	// The path of the mount is left out: it is a new one at each attempt, so each would be a new event of the
	// pod.
	if inMount, ok := errors.AsType[*fs.PathError](err); ok {
		err = inMount.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s of the image: %w", path, err)
	}

	return data, nil
}
