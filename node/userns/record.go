package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/node/criconfig"
)

// record is the content of a pod's file, as kubelet writes it.
type record struct {
	UIDMappings []mapping `json:"uidMappings"`
	GIDMappings []mapping `json:"gidMappings"`
}

type mapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

// maxRecord bounds what is read of a file, in bytes.
const maxRecord = 4096

// read returns the users that a file says.
func read(path string) (criconfig.Users, error) {
	f, err := os.Open(path)
	if err != nil {
		return criconfig.Users{}, err
	}
	defer f.Close()

	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return criconfig.Users{}, err
	}

	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return criconfig.Users{}, fmt.Errorf("invalid user namespace mappings file: %w", err)
	}

	return r.users()
}

// users returns what a record says if it is one that an agent can have written.
func (r record) users() (criconfig.Users, error) {
	const invalid = "invalid user namespace configuration: "
	switch {
	case len(r.UIDMappings) != 1:
		return criconfig.Users{}, errors.New(invalid + "no more than one mapping allowed")
	case len(r.GIDMappings) != 1, r.UIDMappings[0] != r.GIDMappings[0]:
		return criconfig.Users{}, errors.New(invalid + "GID and UID mappings should be identical")
	}

	m := r.UIDMappings[0]
	switch {
	case m.ContainerID != 0:
		return criconfig.Users{}, errors.New(invalid + "UID 0 must be mapped")
	case m.Length == 0 || m.Length%unit != 0:
		return criconfig.Users{}, fmt.Errorf("wrong user namespace length %d", m.Length)
	case m.HostID < unit || m.HostID%unit != 0:
		return criconfig.Users{}, fmt.Errorf("wrong user namespace offset specified %d", m.HostID)
	case uint64(m.HostID)+uint64(m.Length) > math.MaxUint32+1:
		return criconfig.Users{}, fmt.Errorf("id %d is out of range", m.HostID)
	}

	return criconfig.Users{First: m.HostID, Length: m.Length}, nil
}

// write writes the file of a pod, whose directory is made if need be. It survives a power loss: what the pod
// has written by then is owned by these IDs.
func write(path string, users criconfig.Users) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}

	ids := []mapping{{HostID: users.First, Length: users.Length}}
	data, err := json.Marshal(record{UIDMappings: ids, GIDMappings: ids})
	if err != nil {
		return err
	}

	return durable.WriteFile(path, data, 0o600)
}
