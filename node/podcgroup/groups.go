package podcgroup

import "k8s.io/apimachinery/pkg/types"

// Tiers returns the groups above those of pods: kubepods, burstable and besteffort.
func (t *Tree) Tiers() []string {
	out := make([]string, 0, len(tiers))
	for _, qos := range tiers {
		out = append(out, t.names.group(tier(qos)...))
	}
	return out
}

// Groups returns the group of each pod that has one in any hierarchy, named as by the driver in use.
func (t *Tree) Groups() (map[types.UID]string, error) {
	out := map[types.UID]string{}
	for _, qos := range tiers {
		children, err := t.cfg.Host.Children(t.names.group(tier(qos)...))
		if err != nil {
			return nil, err
		}

		for _, c := range children {
			if uid, ok := t.names.uid(c, tier(qos)); ok {
				out[uid] = podGroup(t.names, qos, uid)
			}
		}
	}

	return out, nil
}
