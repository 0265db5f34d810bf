package spec

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/namespace"
)

// UsersOf returns the user namespace that a pod asks for, without its path; nil is the host's. An error says
// what of it cannot be made: a namespace of a pod has the same users as groups, all from 0 on.
func UsersOf(asked *runtimeapi.UserNamespace) (*namespace.Users, error) {
	mappings := len(asked.GetUids()) + len(asked.GetGids())
	switch {
	case asked == nil:
		return nil, nil
	case asked.Mode == runtimeapi.NamespaceMode_NODE && mappings == 0:
		return nil, nil
	case asked.Mode == runtimeapi.NamespaceMode_NODE:
		return nil, errors.New("user namespace: the node's has no mappings")
	case asked.Mode != runtimeapi.NamespaceMode_POD:
		return nil, fmt.Errorf("user namespace: mode %s is not POD or NODE", asked.Mode)
	}

	users, err := idsOf("users", asked.Uids)
	if err != nil {
		return nil, err
	}

	groups, err := idsOf("groups", asked.Gids)
	if err != nil {
		return nil, err
	}

	if users != groups {
		const format = "user namespace: users (%d from %d on) and groups (%d from %d on) " +
			"are mapped differently"
		return nil, fmt.Errorf(format, users.Length, users.First, groups.Length, groups.First)
	}

	return &users, nil
}

// idsOf returns what one mapping of users or groups says.
func idsOf(what string, mappings []*runtimeapi.IDMapping) (namespace.Users, error) {
	if len(mappings) != 1 {
		const format = "user namespace: %d mappings of %s, not one"
		return namespace.Users{}, fmt.Errorf(format, len(mappings), what)
	}

	m := mappings[0]
	if m.GetContainerId() != 0 {
		const format = "user namespace: %s are mapped from %d on: 0, which is root, must be mapped"
		return namespace.Users{}, fmt.Errorf(format, what, m.ContainerId)
	}

	ids := namespace.Users{First: m.GetHostId(), Length: m.GetLength()}
	if err := ids.Check(); err != nil {
		return ids, fmt.Errorf("user namespace: %s: %w", what, err)
	}

	return ids, nil
}

// users says which IDs the container's namespace has, and refuses to run a user that it does not have.
func users(s *specs.Spec, u *namespace.Users) error {
	if u == nil {
		return nil
	}

	user := s.Process.User
	if _, ok := u.Outside(user.UID); !ok {
		return fmt.Errorf("user %d is none of the %d of the pod's user namespace", user.UID, u.Length)
	}
	for _, group := range append([]uint32{user.GID}, user.AdditionalGids...) {
		if _, ok := u.Outside(group); !ok {
			return fmt.Errorf("group %d is none of the %d of the pod's user namespace", group, u.Length)
		}
	}

	s.Linux.UIDMappings = Mappings(*u)
	s.Linux.GIDMappings = Mappings(*u)
	return nil
}

// Mappings returns the mappings of users, or of groups, of a namespace.
func Mappings(u namespace.Users) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{HostID: u.First, Size: u.Length}}
}

// Maps reports whether the files of a volume are to show as those of the pod's users: in this namespace or
// not at all. Those of an image are mounted so by now.
func Maps(asked *runtimeapi.Mount, u *namespace.Users) (bool, error) {
	if len(asked.UidMappings)+len(asked.GidMappings) == 0 {
		return false, nil
	}

	wanted, err := UsersOf(&runtimeapi.UserNamespace{
		Mode: runtimeapi.NamespaceMode_POD,
		Uids: asked.UidMappings,
		Gids: asked.GidMappings,
	})
	switch {
	case err != nil:
		return false, err
	case u == nil:
		return false, errors.New("its files are mapped to users of a pod that has no user namespace")
	case wanted.First != u.First || wanted.Length != u.Length:
		const format = "its files are mapped to %d users from %d on, the pod to %d from %d on"
		return false, fmt.Errorf(format, wanted.Length, wanted.First, u.Length, u.First)
	}

	return asked.GetImage().GetImage() == "", nil
}
