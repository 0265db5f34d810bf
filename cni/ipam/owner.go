package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Owner is who holds an address: an attachment in CNI's terms.
type Owner struct{ ContainerID, IfName string }

func (o Owner) String() string  { return o.ContainerID + "/" + o.IfName }
func (o Owner) content() string { return o.ContainerID + "\r\n" + o.IfName }

// Label is String in as many bytes as everything takes that carries an owner: aliases of interfaces, comments
// in nftables.
func (o Owner) Label() string { return Shorten(o.String()) }

// maxLabel leaves room for two in a kernel's 255 bytes.
const maxLabel = 120

// Shorten cuts a name that is too long for a label, and tells names of one beginning apart by a hash.
func Shorten(name string) string {
	if len(name) <= maxLabel {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	mark := "~" + hex.EncodeToString(sum[:8])
	return name[:maxLabel-len(mark)] + mark
}

// index is a file name of its own for each owner: neither container IDs nor interface names hold a colon or a
// slash (CNI specification, "Parameters"; dev_valid_name of the kernel).
func (o Owner) index() string {
	name := o.ContainerID + ":" + o.IfName
	if len(name) > maxFileName {
		sum := sha256.Sum256([]byte(name))
		return hex.EncodeToString(sum[:])
	}
	return name
}

const maxFileName = 255

// formerIndex is the name that versions up to 0.1 gave the entry. Two owners may share it, so it is removed
// and never read: without an entry the reservations themselves tell.
func (o Owner) formerIndex() string { return Shorten(o.ContainerID) + "." + o.IfName }

// matches accepts host-local's old format too: the container ID alone.
func matches(content string, owner Owner) bool {
	content = strings.TrimSpace(content)
	return content == owner.content() || content == owner.ContainerID
}

func parseOwner(content string) Owner {
	id, ifname, _ := strings.Cut(strings.TrimSpace(content), "\r\n")
	return Owner{ContainerID: id, IfName: ifname}
}
