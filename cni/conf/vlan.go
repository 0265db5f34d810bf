package conf

import (
	"slices"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// trunkKeys are one VLAN, a range of them, or both.
type trunkKeys struct {
	MinID *int
	MaxID *int
	ID    *int
}

func readTrunk(o document.Object) (all []trunkKeys) {
	for _, part := range o.Objects("vlanTrunk") {
		var t trunkKeys
		part.Read("minID", &t.MinID)
		part.Read("maxID", &t.MaxID)
		part.Read("id", &t.ID)
		all = append(all, t)
	}
	return all
}

// maxVLAN is the highest number of a VLAN (IEEE 802.1Q).
const maxVLAN = 4094

func (k bridgeKeys) vlans() (v bridge.VLANs, err error) {
	if k.VLAN < 0 || k.VLAN > maxVLAN {
		return v, Invalid("vlan %d is not within 0 and %d", k.VLAN, maxVLAN)
	}

	v.ID = uint16(k.VLAN)
	v.KeepDefault = k.PreserveDefault
	for _, t := range k.VLANTrunk {
		part, err := t.parse()
		if err != nil {
			return v, err
		}
		v.Trunk = append(v.Trunk, part...)
	}

	v.Trunk = merge(v.Trunk)
	return v, nil
}

func (t trunkKeys) parse() (all []rtnl.VLAN, err error) {
	if (t.MinID == nil) != (t.MaxID == nil) {
		return nil, Invalid("vlanTrunk: minID and maxID are there together or not at all")
	}

	if t.MinID != nil {
		if !isVLAN(*t.MinID) || !isVLAN(*t.MaxID) || *t.MaxID < *t.MinID {
			const format = "vlanTrunk: %d to %d is not a range within 1 and %d"
			return nil, Invalid(format, *t.MinID, *t.MaxID, maxVLAN)
		}
		all = append(all, rtnl.VLAN{First: uint16(*t.MinID), Last: uint16(*t.MaxID)})
	}

	if t.ID != nil {
		if !isVLAN(*t.ID) {
			return nil, Invalid("vlanTrunk: id %d is not within 1 and %d", *t.ID, maxVLAN)
		}
		all = append(all, rtnl.VLAN{First: uint16(*t.ID), Last: uint16(*t.ID)})
	}

	return all, nil
}

func isVLAN(id int) bool { return id >= 1 && id <= maxVLAN }

// merge sorts ranges and joins those that overlap or touch.
func merge(all []rtnl.VLAN) (merged []rtnl.VLAN) {
	slices.SortFunc(all, func(a, b rtnl.VLAN) int { return int(a.First) - int(b.First) })
	for _, v := range all {
		if n := len(merged); n > 0 && v.First <= merged[n-1].Last+1 {
			merged[n-1].Last = max(merged[n-1].Last, v.Last)
			continue
		}
		merged = append(merged, v)
	}
	return merged
}
