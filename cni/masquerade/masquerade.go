// Package masquerade makes pods appear beyond the host with the host's address, pod by pod, in the tables of
// upstream's plugins and with their rules, so that each of the two can remove what the other one has made. A
// network of trivet-cni has rules for all its pods at once instead: package hostnat.
package masquerade

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"github.com/trivet-node/trivet/cni/ipam"
)

// Backend says where the rules are.
type Backend string

// The backends.
const (
	NFTables Backend = "nftables"
	IPTables Backend = "iptables"
)

// Pod is what the rules of a pod depend on.
type Pod struct {
	Network string
	Owner   ipam.Owner
	// Addresses have the prefix length of their subnet, which sees the pod's own address.
	Addresses []netip.Prefix
}

// Ensure writes the rules of a pod, in place of those that it has.
func (p Pod) Ensure(b Backend) error {
	if b == IPTables {
		return p.ensureIPTables()
	}
	return p.ensureNFTables()
}

// Check returns an error unless the pod has its rules as they were written, in whichever backend.
func (p Pod) Check() error {
	inNFTables, failure := p.checkNFTables()
	if failure == nil || inNFTables {
		return failure
	}

	inIPTables, other := p.checkIPTables()
	if other == nil || inIPTables {
		return other
	}

	return failure
}

func (p Pod) missing(a netip.Prefix, where string) error {
	return fmt.Errorf("address %s of %s is not masqueraded in %s", a.Addr(), p.Owner, where)
}

// Remove removes the rules of a pod from both backends, whatever its addresses were. None is success.
func Remove(network string, owner ipam.Owner) error {
	return errors.Join(removeNFTables(network, owner), removeIPTables(network, owner))
}

// Keep removes the rules of all pods of a network that are not valid: CNI's GC.
func Keep(network string, valid []ipam.Owner) error {
	return errors.Join(keepNFTables(network, valid), keepIPTables(network, valid))
}

// hashOf returns the first digits of the hash by which upstream's plugins name things.
func hashOf(text string, digits int) string {
	sum := sha512.Sum512([]byte(text))
	return hex.EncodeToString(sum[:])[:digits]
}
