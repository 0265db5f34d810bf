package eviction

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/node/threshold"
)

var layouts = map[string]Layout{
	"one file system":           {},
	"images apart":              {Images: true},
	"images and layers divided": {Images: true, Split: true},
}

// What kubelet measures pods by on each file system, and what it removes before.
func TestEachFileSystemHasItsPartsOfPodsAndWhatCanBeRemoved(t *testing.T) {
	const all = "layers logs volumes, removes containers images"
	for name, want := range map[string]map[string]string{
		"one file system": {
			threshold.NodeFS:      all,
			threshold.ImageFS:     all,
			threshold.ContainerFS: all,
			threshold.PIDs:        "",
		},
		"images apart": {
			threshold.NodeFS:      "logs volumes, removes containers",
			threshold.ImageFS:     "layers, removes containers images",
			threshold.ContainerFS: "layers, removes containers images",
		},
		"images and layers divided": {
			threshold.NodeFS:      "layers logs volumes, removes containers",
			threshold.ImageFS:     ", removes images",
			threshold.ContainerFS: "layers logs volumes, removes containers",
		},
	} {
		for signal, text := range want {
			l := layouts[name]
			var words []string
			if slices.Contains(ofDisk, signal) {
				for _, p := range l.parts(signal) {
					words = append(words, [...]string{"layers", "logs", "volumes"}[p])
				}
			}

			got := strings.Join(words, " ")
			containers, images := l.reclaim(signal)
			if containers || images {
				got += ", removes"
			}
			if containers {
				got += " containers"
			}
			if images {
				got += " images"
			}

			if got != text {
				t.Errorf("%s, %s: %q, want %q", name, signal, got, text)
			}
		}
	}
}

func TestInodesAreTreatedAsSpace(t *testing.T) {
	for name, l := range layouts {
		for space, inodes := range map[string]string{
			threshold.NodeFS:      threshold.NodeFSInodes,
			threshold.ImageFS:     threshold.ImageFSInodes,
			threshold.ContainerFS: threshold.ContainerFSInodes,
		} {
			if !slices.Equal(l.parts(space), l.parts(inodes)) {
				t.Errorf("%s, %s: other parts than %s", name, inodes, space)
			}

			c1, i1 := l.reclaim(space)
			c2, i2 := l.reclaim(inodes)
			if c1 != c2 || i1 != i2 {
				t.Errorf("%s, %s: other things are removed than for %s", name, inodes, space)
			}
		}
	}
}

// kubelet overrides what is configured for the container file system.
func TestTheContainerFileSystemHasTheThresholdsOfTheOneThatItIs(t *testing.T) {
	all := thresholds(t, "nodefs.available<100 reclaim 7", "nodefs.inodesFree<5", "imagefs.available<150",
		"containerfs.available<1", "nodefs.available<200 soft 1m")
	for name, want := range map[string][]string{
		"one file system": {
			"containerfs.available<100 0s 7",
			"containerfs.inodesFree<5 0s 0",
			"containerfs.available<200 1m0s 7",
		},
		"images apart": {"containerfs.available<150 0s 0"},
		"images and layers divided": {
			"containerfs.available<100 0s 7",
			"containerfs.inodesFree<5 0s 0",
			"containerfs.available<200 1m0s 7",
		},
	} {
		var got []string
		for _, x := range layouts[name].thresholds(all) {
			if strings.HasPrefix(x.Signal, "containerfs") {
				got = append(got, fmt.Sprintf("%s<%d %s %d",
					x.Signal, x.Amount.Of(1000), x.Grace, x.Reclaim.Of(1000)))
			}
		}

		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
