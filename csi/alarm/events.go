package alarm

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/kube/event"
)

// Config says where events go.
type Config struct {
	Local   objects.Local
	Objects *objects.Watched // listed
	Events  *event.Recorder
}

// kind is what an event says: about the claim of a volume, or about the Node.
type kind struct {
	level           string
	onClaim, onNode string // reasons; those on claims are external-health-monitor's
	text            string
}

var (
	damaged = kind{corev1.EventTypeWarning, "VolumeConditionAbnormal", "VolumesDamaged", "cannot be used"}
	healed  = kind{corev1.EventTypeNormal, "VolumeConditionNormal", "VolumesHealed", "can be used again"}
)

// ToEvents tells who looks at a claim, by an event on it. Volumes without a claim, such as those that are
// part of a pod, and snapshots are told by one on the Node; so are more than most at a time, which have one
// cause: thousands of events would take from the cluster what it needs then.
func ToEvents(cfg Config) func(changed []volume.Volume) {
	return func(changed []volume.Volume) {
		var ill, well []volume.Volume
		for _, v := range changed {
			if v.Damage != nil {
				ill = append(ill, v)
			} else {
				well = append(well, v)
			}
		}
		cfg.say(damaged, ill)
		cfg.say(healed, well)
	}
}

func (cfg Config) say(k kind, volumes []volume.Volume) {
	if len(volumes) > most {
		cfg.sayOnNode(k, volumes)
		return
	}

	var unclaimed []volume.Volume
	for _, v := range volumes {
		claim, ok := cfg.claimOf(v)
		if !ok {
			unclaimed = append(unclaimed, v)
			continue
		}
		text := fmt.Sprintf("volume %s on node %s %s%s", v.ID, cfg.Local.Node, k.text, causeOf(v))
		if errors.Is(v.Damage, volume.ErrLost) {
			text += "; put its content back, by renaming a whole copy into its place, or delete the claim"
		}
		cfg.Events.Record(event.Object("PersistentVolumeClaim", claim), k.level, k.onClaim, text)
	}
	cfg.sayOnNode(k, unclaimed)
}

// sayOnNode says of volumes together how many they are, and names some.
func (cfg Config) sayOnNode(k kind, volumes []volume.Volume) {
	if len(volumes) == 0 {
		return
	}
	var names []string
	for _, v := range volumes[:min(len(volumes), 3)] {
		names = append(names, v.ID)
	}
	text := fmt.Sprintf("%d volumes of %s %s, such as %s%s: trivet-csi doctor says more",
		len(volumes), cfg.Local.Driver, k.text, strings.Join(names, ", "), causeOf(volumes[0]))
	cfg.Events.Record(event.Node(cfg.Local.Node), k.level, k.onNode, text)
}

func causeOf(v volume.Volume) string {
	if v.Damage == nil {
		return ""
	}
	return " (" + v.Damage.Error() + ")"
}

// claimOf returns what the claim is known by that a volume is bound to.
func (cfg Config) claimOf(v volume.Volume) (claim *metav1.ObjectMeta, ok bool) {
	for _, pv := range cfg.Objects.Volumes.By(v.ID) {
		if ref := pv.Spec.ClaimRef; ref != nil && cfg.Local.Holds(pv) {
			return &metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name, UID: ref.UID}, true
		}
	}
	return nil, false
}
