package conf

import (
	"github.com/trivet-node/trivet/cni/conf/document"
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
	o, err := DecodeLeniently(stdin)
	if err != nil {
		return nil, err
	}

	// First, while nothing else can have a wrong type.
	t := &Teardown{}
	if t.Valid, err = readAttachments(o); err != nil {
		return nil, err
	}

	o.Read("name", &t.Network)
	o.Read("bridge", &t.Bridge)
	o.Read("lazyUnlink", &t.LazyUnlink)
	if t.Bridge == "" {
		t.Bridge = defaultBridge
	}

	section := o.Object("ipam")
	section.Read("type", &t.IPAMType)
	if checkIPAMType(t.IPAMType) != nil {
		t.IPAMType = ""
	}

	var pool poolKeys
	pool.read(section)
	t.Pool = pool.location(t.Network)
	return t, nil
}

// readAttachments reads the list of those that the runtime has; nil when it sent none.
func readAttachments(o document.Object) (*Attachments, error) {
	const key = "cni.dev/valid-attachments"
	if o.Raw(key) == nil {
		return nil, nil
	}

	var all []ipam.Owner
	for _, part := range o.Objects(key) {
		var owner ipam.Owner
		part.Read("containerID", &owner.ContainerID)
		part.Read("ifname", &owner.IfName)
		all = append(all, owner)
	}
	if err := o.Err(); err != nil {
		return nil, decodeError(err)
	}

	return newAttachments(all), nil
}

// Attachments are those that the runtime has.
type Attachments struct {
	owners map[ipam.Owner]bool
	labels map[string]bool
}

func newAttachments(list []ipam.Owner) *Attachments {
	a := &Attachments{owners: map[ipam.Owner]bool{}, labels: map[string]bool{}}
	for _, owner := range list {
		a.owners[owner] = true
		a.labels[owner.Label()] = true
		// A reservation in host-local's old format names no interface.
		a.owners[ipam.Owner{ContainerID: owner.ContainerID}] = true
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
