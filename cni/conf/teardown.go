package conf

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// ParseTeardown reads the configuration for DEL and GC. They take apart what they can name and what is
// recorded, so nothing is checked that only ADD needs: whatever has become of the configuration since, a
// container must be able to go.
func ParseTeardown(program string, stdin []byte) (*Network, error) {
	h, role, err := readHead(program, stdin)
	if err != nil {
		return nil, err
	}

	n := &Network{
		CNIVersion: h.CNIVersion,
		Name:       h.Name,
		Type:       h.Type,
		Role:       role,
		Bridge:     h.Bridge,
		LazyUnlink: h.LazyUnlink,
	}
	if n.Bridge == "" {
		n.Bridge = defaultBridge
	}

	n.IPAM = &IPAM{DataDir: h.IPAM.DataDir, BootScoped: h.IPAM.BootScoped}
	if n.IPAM.DataDir == "" {
		n.IPAM.DataDir = DefaultDataDir
	}

	// The one thing that must not be mistaken: with a list that cannot be read, GC would take all.
	if len(h.ValidAttachments) == 0 || bytes.Equal(h.ValidAttachments, []byte("null")) {
		return n, nil
	}

	if err := json.Unmarshal(h.ValidAttachments, &n.Valid); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure,
			fmt.Sprintf("network %q: cni.dev/valid-attachments", n.Name), err.Error())
	}

	n.HasValid = true
	return n, nil
}
