package survey

import (
	"strings"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/throttle"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Limits are the limits of input and output of the devices of volumes, beside what records say.
type Limits struct {
	// Err is why it is not known what is in force.
	Err error

	// Differing are the control groups that have others than the record of the volume says, by the volume's
	// ID: others than its limits while it is staged, any when it is not.
	Differing map[string][]string
}

func (s *Survey) lookAtLimits(kubeletDir string) Limits {
	host, err := cgroup.Open()
	if err != nil {
		return Limits{Err: err}
	}
	pods, err := throttle.New(host, "/")
	if err != nil {
		return Limits{Err: err}
	}

	l := Limits{Differing: map[string][]string{}}
	for _, d := range s.Devices {
		if d.Thing == "pool" || d.ID == 0 {
			continue
		}

		staged, used := s.Staged[d.Thing]
		var wanted volume.Limits
		if used {
			wanted = s.Records[d.Thing].Limits
		}
		groups, err := pods.Differing(d.ID, wanted, podsOf(kubeletDir, staged.Targets))
		if err != nil {
			l.Err = err
		}
		if len(groups) > 0 {
			l.Differing[d.Thing] = groups
		}
	}

	return l
}

// podsOf returns the UIDs of the pods whose targets these are.
func podsOf(kubeletDir string, targets []string) []string {
	var pods []string
	for _, path := range targets {
		below, ok := strings.CutPrefix(path, strings.TrimSuffix(kubeletDir, "/")+"/")
		if uid := publish.PodOf(below); ok && uid != "" {
			pods = append(pods, uid)
		}
	}
	return pods
}
