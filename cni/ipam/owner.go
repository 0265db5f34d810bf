package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Owner is who holds an address: an attachment in CNI's terms.
type Owner struct{ ContainerID, IfName string }

// String returns CONTAINER/IFNAME.
func (o Owner) String() string { return o.ContainerID + "/" + o.IfName }

// content is what a reservation of o holds.
func (o Owner) content() string { return o.ContainerID + "\r\n" + o.IfName }

// Label returns String in at most as many bytes as everything takes that carries an owner: aliases of
// interfaces, comments in nftables.
func (o Owner) Label() string { return Shorten(o.String()) }

// maxLabel leaves room for two labels in the kernel's 255 bytes.
const maxLabel = 120

// Shorten cuts a name that is too long for a label; a hash tells names with the same beginning apart.
func Shorten(name string) string {
	if len(name) <= maxLabel {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	mark := "~" + hex.EncodeToString(sum[:8])
	return name[:maxLabel-len(mark)] + mark
}

// maxFileName is the kernel's limit.
const maxFileName = 255

// index returns the file name of the owner's index entry, a different one for each owner: neither container
// IDs nor interface names contain a colon or a slash (CNI specification, "Parameters"; dev_valid_name of the
// kernel).
func (o Owner) index() string {
	name := o.ContainerID + ":" + o.IfName
	if len(name) > maxFileName {
		sum := sha256.Sum256([]byte(name))
		return hex.EncodeToString(sum[:])
	}
	return name
}

// formerIndex returns the name of the entry in versions up to 0.1. Two owners may share it, so it is removed
// and never read: without an entry the reservations themselves are read.
func (o Owner) formerIndex() string { return Shorten(o.ContainerID) + "." + o.IfName }

// matches reports whether a reservation is owner's. In host-local's old format it holds the container ID
// alone.
func matches(content string, owner Owner) bool {
	content = strings.TrimSpace(content)
	return content == owner.content() || content == owner.ContainerID
}

func parseOwner(content string) Owner {
	id, ifname, _ := strings.Cut(strings.TrimSpace(content), "\r\n")
	return Owner{ContainerID: id, IfName: ifname}
}
