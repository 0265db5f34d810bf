package conf

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// Role is what the program is called for.
type Role string

// The roles are plugin types: those of upstream that the program can stand for, and its own.
const (
	TrivetCNI Role = "trivet-cni"
	Bridge    Role = "bridge"
	HostLocal Role = "host-local"
	Loopback  Role = "loopback"
)

// head is what says which role a call is for. It is read whatever else the configuration holds: that is
// another plugin's, or of an operation that can do without.
type head struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	IPAM       struct {
		Type       string `json:"type"`
		DataDir    string `json:"dataDir"`
		BootScoped bool   `json:"bootScoped"`
	} `json:"ipam"`
	PrevResult map[string]any `json:"prevResult"`

	// What only DEL and GC need of the rest.
	Bridge           string          `json:"bridge"`
	LazyUnlink       bool            `json:"lazyUnlink"`
	ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments"`
}

func readHead(program string, stdin []byte) (h head, role Role, err error) {
	// a key that has a value of another type counts as absent
	var misfit *json.UnmarshalTypeError
	if err := json.Unmarshal(stdin, &h); err != nil && !errors.As(err, &misfit) {
		return h, "", undecodable(err)
	}
	if role = h.role(program); role == "" {
		err = types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %q", h.Name),
			fmt.Sprintf("program %s is no plugin of type %q", program, h.Type))
	}
	return h, role, err
}

// role: a plugin is called by the name of its type, and an IPAM plugin by that of ipam.type, while the type
// is then that of the main plugin, which called it (CNI specification, section 4). A program of another name,
// as in a test, is taken for what the type says.
func (h head) role(program string) Role {
	switch r := Role(program); r {
	case Bridge, HostLocal, Loopback:
		return r
	}

	if h.IPAM.Type == program && h.Type != program {
		return HostLocal
	}

	switch r := Role(h.Type); r {
	case TrivetCNI, Bridge, HostLocal, Loopback:
		return r
	}

	return ""
}
