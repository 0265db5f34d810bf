package driver

import (
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/volume"
)

// Parameters of a StorageClass.
type Parameters struct {
	Backend string // "": the node's choice
	NoCOW   *bool  // nil: blocks are overwritten in place, where the backend lets one choose
}

// ParseParameters reads the parameters of a StorageClass. What begins with csi.storage.k8s.io/ was added by a
// provisioner and is skipped; any other unknown name is refused, for a misspelt parameter must not make a
// volume that nobody asked for.
func ParseParameters(in map[string]string) (Parameters, error) {
	var p Parameters
	for key, value := range in {
		switch {
		case strings.HasPrefix(key, "csi.storage.k8s.io/"):
		case key == "backend":
			switch value {
			case "btrfs", "image":
				p.Backend = value
			case "auto":
			default:
				return Parameters{}, invalid("parameter backend is %q; known are auto, btrfs and image",
					value)
			}

		case key == "nocow":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return Parameters{}, invalid("parameter nocow is %q, neither true nor false", value)
			}

			p.NoCOW = &on

		default:
			return Parameters{}, invalid("unknown parameter %q; known are backend and nocow", key)
		}
	}

	return p, nil
}

// wanted is what a list of capabilities asks of a volume.
type wanted struct {
	access       volume.Access
	fsType       string
	options      []string
	readOnly     bool
	singleWriter bool
}

var served = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
}

var fileSystems = []string{"", "btrfs", "ext4", "xfs"}

// parseCapabilities joins capabilities; the volume has to satisfy all of them. It lives on one node, so modes
// of many nodes are refused.
func parseCapabilities(caps ...*csi.VolumeCapability) (wanted, error) {
	var w wanted
	if len(caps) == 0 {
		return w, invalid("volume capabilities are missing")
	}

	for _, c := range caps {
		if c == nil {
			return w, invalid("volume capability is missing")
		}

		mode := c.GetAccessMode().GetMode()
		if !slices.Contains(served, mode) {
			return w, invalid("access mode %s: a volume of this driver is on one node", mode)
		}

		w.readOnly = w.readOnly || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
		w.singleWriter = w.singleWriter || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
		access := volume.Filesystem
		switch {
		case c.GetBlock() != nil:
			access = volume.Block
		case c.GetMount() == nil:
			return w, invalid("volume capability has neither mount nor block access")
		}

		if w.access != "" && w.access != access {
			return w, invalid("one volume cannot have mount and block access")
		}

		w.access = access
		fs := c.GetMount().GetFsType()
		if !slices.Contains(fileSystems, fs) {
			return w, invalid("file system %q; known are btrfs, ext4 and xfs", fs)
		}
		if fs != "" && w.fsType != "" && fs != w.fsType {
			return w, invalid("file systems %s and %s for one volume", w.fsType, fs)
		}

		w.fsType = max(w.fsType, fs)
		if c.GetMount().GetVolumeMountGroup() != "" {
			return w, invalid("volume mount group: the driver does not have this capability")
		}

		w.options = append(w.options, c.GetMount().GetMountFlags()...)
	}

	return w, nil
}

func (w wanted) use(readOnly bool) volume.Use {
	return volume.Use{
		Access:       w.access,
		FSType:       w.fsType,
		Options:      w.options,
		ReadOnly:     readOnly || w.readOnly,
		SingleWriter: w.singleWriter,
	}
}

// tokenPrefix begins every page token of ours; after it comes the last ID of the page before.
const tokenPrefix = "after:"

func parseToken(token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || volume.CheckID(after) != nil {
		return "", errAborted
	}
	return after, nil
}
