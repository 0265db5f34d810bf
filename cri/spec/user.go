package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is who a container runs as.
type User struct {
	specs.User
	Home string
}

// ResolveUser finds the user in the image's passwd and group files: what the container asks for, else what the image says. Paths in the image
// never lead out of rootfs.
func ResolveUser(rootfs, imageUser string, security *runtimeapi.LinuxContainerSecurityContext) (User, error) {
	asked, err := wanted(imageUser, security)
	if err != nil {
		return User{}, err
	}
	passwd, err := open(rootfs, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	defer passwd.Close()
	group, err := open(rootfs, "/etc/group")
	if err != nil {
		return User{}, err
	}
	defer group.Close()
	found, err := user.GetExecUser(asked, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", asked, err)
	}
	u := User{User: specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}, Home: found.Home}
	u.AdditionalGids = append(u.AdditionalGids, u.GID)
	var extra []int64
	if security.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		for _, g := range found.Sgids {
			extra = append(extra, int64(g))
		}
	}
	for _, g := range append(extra, security.GetSupplementalGroups()...) {
		if !slices.Contains(u.AdditionalGids, uint32(g)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(g))
		}
	}
	return u, nil
}

// wanted is USER[:GROUP] in passwd's words.
func wanted(imageUser string, security *runtimeapi.LinuxContainerSecurityContext) (string, error) {
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

func open(rootfs, path string) (io.ReadCloser, error) {
	handle, err := pathrs.OpenInRoot(rootfs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	defer handle.Close()
	// Before it is opened: that would wait for a FIFO's writer, and make a device do what it does on open.
	if info, err := handle.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s of the image is no regular file", path)
	}
	f, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	return f, nil
}
