package conf

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/ipam"
)

// Teardown is what DEL and GC need of a configuration. They delete what they can name and what is recorded,
// so nothing is checked that only ADD needs: however the configuration was changed since, a container can go.
type Teardown struct {
	Network string
	Bridge  string
	// LazyUnlink lets DEL cut the host's end of the veth off instead of deleting it, which takes the kernel
	// 16 to 30 ms: both ends go with the container's namespace. For runtimes that destroy it after DEL.
	LazyUnlink bool
	Pool       ipam.Location
	// IPAMType is what the configuration names now; the plugin may be another one, or not be there.
	IPAMType string
	// Valid are the attachments that the runtime has, in GC. It is nil when the runtime sent no list: then
	// nothing may be collected.
	Valid *Attachments
}

// ReadTeardown reads the configuration for DEL and GC. A value of a wrong type counts as absent, except for
// the list of valid attachments: GC would take one that cannot be read for an empty one, and collect
// everything.
func ReadTeardown(stdin []byte) (*Teardown, error) {
	var k struct {
		Name       string `json:"name"`
		Bridge     string `json:"bridge"`
		LazyUnlink bool   `json:"lazyUnlink"`
		IPAM       struct {
			Type string `json:"type"`
			poolKeys
		} `json:"ipam"`
		ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments"`
	}
	if err := DecodeLeniently(stdin, &k); err != nil {
		return nil, err
	}

	t := &Teardown{
		Network:    k.Name,
		Bridge:     k.Bridge,
		LazyUnlink: k.LazyUnlink,
		Pool:       k.IPAM.location(k.Name),
		IPAMType:   k.IPAM.Type,
	}
	if t.Bridge == "" {
		t.Bridge = defaultBridge
	}
	if checkIPAMType(t.IPAMType) != nil {
		t.IPAMType = ""
	}
	if len(k.ValidAttachments) == 0 || string(k.ValidAttachments) == "null" {
		return t, nil
	}

	// Here a value of a wrong type is an error.
	var list []types.GCAttachment
	if err := json.Unmarshal(k.ValidAttachments, &list); err != nil {
		return nil, fmt.Errorf("%w: cni.dev/valid-attachments: %w", ErrDecode, err)
	}

	t.Valid = newAttachments(list)
	return t, nil
}

// Attachments are those that the runtime has.
type Attachments struct {
	owners map[ipam.Owner]bool
	labels map[string]bool
}

func newAttachments(list []types.GCAttachment) *Attachments {
	a := &Attachments{owners: map[ipam.Owner]bool{}, labels: map[string]bool{}}
	for _, v := range list {
		owner := ipam.Owner{ContainerID: v.ContainerID, IfName: v.IfName}
		a.owners[owner] = true
		a.labels[owner.Label()] = true
		// A reservation in host-local's old format names no interface.
		a.owners[ipam.Owner{ContainerID: v.ContainerID}] = true
	}
	return a
}

// Owners lists them.
func (a *Attachments) Owners() (all []ipam.Owner) {
	for owner := range a.owners {
		if owner.IfName != "" {
			all = append(all, owner)
		}
	}
	return all
}

// Has reports whether the runtime has the attachment of an owner.
func (a *Attachments) Has(o ipam.Owner) bool { return a.owners[o] }

// HasLabel reports the same for what carries its owner's label.
func (a *Attachments) HasLabel(label string) bool { return a.labels[label] }
