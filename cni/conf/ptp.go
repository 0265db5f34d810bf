package conf

import (
	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/masquerade"
)

// PointToPoint is the configuration of ptp.
type PointToPoint struct {
	MTU int
	// Masquerade is the backend for masquerading; "" for none.
	Masquerade masquerade.Backend
	IPAMType   string
	// IPAM is host-local's; nil when another plugin gives addresses.
	IPAM *IPAM
	DNS  types.DNS
}

// ptpKeys are those of ptp.
type ptpKeys struct {
	MTU           int
	IPMasq        bool
	IPMasqBackend string
	ipamKeys
	DNS types.DNS
}

func (k *ptpKeys) read(o document.Object) {
	o.Read("mtu", &k.MTU)
	o.Read("ipMasq", &k.IPMasq)
	o.Read("ipMasqBackend", &k.IPMasqBackend)
	k.ipamKeys.read(o)
	k.DNS = readDNS(o)
}

// ReadPointToPoint reads the configuration of ptp. args is CNI_ARGS.
func ReadPointToPoint(stdin []byte, args string) (*PointToPoint, error) {
	var k ptpKeys
	if err := Decode(stdin, k.read); err != nil {
		return nil, err
	}

	parsed, err := ParseArgs(args)
	if err != nil {
		return nil, err
	}

	p := &PointToPoint{
		MTU:      k.MTU,
		IPAMType: k.IPAM.Type,
		DNS:      k.DNS,
	}
	switch {
	case p.MTU < 0 || p.MTU > MaxMTU:
		return nil, Invalid("mtu %d is not within 0 and %d", p.MTU, MaxMTU)
	case p.IPAMType == "":
		return nil, Invalid("ipam is missing")
	}

	if err := checkIPAMType(p.IPAMType); err != nil {
		return nil, err
	}

	if k.IPMasq {
		if p.Masquerade, err = masqueradeBackend(k.IPMasqBackend); err != nil {
			return nil, err
		}
		if p.Masquerade == "" {
			p.Masquerade = masquerade.NFTables
		}
	}

	if p.IPAMType == HostLocal || p.IPAMType == Own {
		p.IPAM, err = k.ipamKeys.config(parsed)
	}

	return p, err
}

// perPod returns the backend for masquerading pod by pod: "" unless the configuration names one. trivet-cni
// has rules for all pods at once in nftables.
func (k natKeys) perPod(isOwn bool) (masquerade.Backend, error) {
	b, err := masqueradeBackend(k.IPMasqBackend)
	if !k.IPMasq || isOwn {
		return "", err
	}
	return b, err
}

func masqueradeBackend(name string) (masquerade.Backend, error) {
	switch b := masquerade.Backend(name); b {
	case "", masquerade.NFTables, masquerade.IPTables:
		return b, nil
	}
	return "", Invalid("ipMasqBackend %q is not one of nftables, iptables", name)
}
