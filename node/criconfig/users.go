package criconfig

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Users are the IDs of the user namespace of a pod, of users and groups alike: 0 in it is First on the host.
// None are those of the host.
type Users struct{ First, Length uint32 }

// mappings are those of CRI.
func (u Users) mappings() []*cri.IDMapping {
	return []*cri.IDMapping{{HostId: u.First, Length: u.Length}}
}

func (u Users) option() *cri.UserNamespace {
	if u == (Users{}) {
		return &cri.UserNamespace{Mode: cri.NamespaceMode_NODE}
	}
	return &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: u.mappings(), Gids: u.mappings()}
}

// GiveSandbox gives the sandbox of a pod its users.
func (u Users) GiveSandbox(config *runtime.SandboxConfig) {
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u.option()
}

// giveContainer gives a container the users of its pod. The files of all its mounts keep their owners on the
// host, and show as if the namespace were the host's: 0 of a file is 0 in the pod.
func (u Users) giveContainer(config *runtime.ContainerConfig) {
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u.option()
	if u == (Users{}) {
		return
	}
	for _, m := range config.Mounts {
		m.UidMappings, m.GidMappings = u.mappings(), u.mappings()
	}
}
