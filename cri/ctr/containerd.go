package ctr

import (
	"errors"
	"slices"
)

// Config is what "containerd config dump" prints: kind looks for the snapshotter in it, in this place of this
// version, which all of its releases know, and hands it to "ctr images import".
const Config = `version = 2

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
`

// CheckDump returns an error unless a command line of containerd, without its own name, asks for its
// configuration.
func CheckDump(args []string) error {
	if slices.Equal(args, []string{"config", "dump"}) {
		return nil
	}
	return errors.New("this containerd is trivet-cri's and serves what kind calls: containerd config dump; " +
		"the runtime of this node is trivet-cri")
}
