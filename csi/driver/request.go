package driver

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

// parameters are those of a StorageClass.
type parameters struct {
	backend string // "": the node's choice
	noCOW   *bool  // nil: blocks are overwritten in place, where the backend has the choice
	reserve *bool  // nil: nothing is reserved that a backend does not reserve by itself

	encryption volume.Encryption
}

// parseParameters reads the parameters of a StorageClass. Those of csi.storage.k8s.io were added by a
// provisioner and are skipped. Any other unknown name is refused: a misspelt parameter must not make a volume
// that nobody asked for.
func parseParameters(in map[string]string) (parameters, error) {
	var p parameters
	for key, value := range in {
		var err error
		switch {
		case strings.HasPrefix(key, "csi.storage.k8s.io/"):
		case key == "backend":
			p.backend, err = parseBackend(value)
		case key == "encryption":
			p.encryption, err = parseEncryption(value)
		case key == "nocow":
			p.noCOW, err = parseBool(key, value)
		case key == "reserve":
			p.reserve, err = parseBool(key, value)
		default:
			err = invalid("unknown parameter %q; known are backend, encryption, nocow and reserve", key)
		}

		if err != nil {
			return parameters{}, err
		}
	}

	return p, nil
}

func parseBackend(value string) (string, error) {
	switch value {
	case "btrfs", "image", "quota":
		return value, nil
	case "auto":
		return "", nil
	}
	return "", invalid("parameter backend is %q; known are auto, btrfs, image and quota", value)
}

func parseEncryption(value string) (volume.Encryption, error) {
	switch value {
	case string(volume.Fscrypt):
		return volume.Fscrypt, nil
	case "none":
		return "", nil
	}
	return "", invalid("parameter encryption is %q; known are none and fscrypt", value)
}

func parseBool(key, value string) (*bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return nil, invalid("parameter %s is %q, neither true nor false", key, value)
	}
	return &on, nil
}

// A lower limit would make a volume useless: what mounts, journals and reads directories needs some.
const (
	leastBytes = 1 << 20
	leastOps   = 10
	mostOps    = math.MaxInt32
)

// parseLimits reads the parameters of a VolumeAttributesClass. All of them together are the limits: what is
// not named, or "max", is not limited. Unknown names are refused, as those of a StorageClass are.
func parseLimits(in map[string]string) (volume.Limits, error) {
	var l volume.Limits
	for key, value := range in {
		var err error
		switch {
		case strings.HasPrefix(key, "csi.storage.k8s.io/"):
		case key == "readBytesPerSecond":
			l.ReadBytes, err = parseLimit(key, value, leastBytes, math.MaxInt64)
		case key == "writeBytesPerSecond":
			l.WriteBytes, err = parseLimit(key, value, leastBytes, math.MaxInt64)
		case key == "readOperationsPerSecond":
			l.ReadOps, err = parseLimit(key, value, leastOps, mostOps)
		case key == "writeOperationsPerSecond":
			l.WriteOps, err = parseLimit(key, value, leastOps, mostOps)
		default:
			err = invalid("unknown mutable parameter %q; known are readBytesPerSecond, writeBytesPerSecond,"+
				" readOperationsPerSecond and writeOperationsPerSecond", key)
		}

		if err != nil {
			return volume.Limits{}, err
		}
	}

	return l, nil
}

// parseLimit reads one limit; 0 for none.
func parseLimit(key, value string, least, most int64) (int64, error) {
	if value == "max" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(value)
	if err != nil || q.CmpInt64(least) < 0 || q.CmpInt64(most) > 0 {
		return 0, invalid("mutable parameter %s is %q, neither max nor a number from %d to %d, such as 50Mi",
			key, value, least, most)
	}
	return q.Value(), nil
}

// wanted is what a list of capabilities asks of a volume.
type wanted struct {
	access       volume.Access
	fsType       string
	options      []string
	readOnly     bool
	singleWriter bool
	group        *int64 // nil: files belong to whom they belong
}

// servedModes are the access modes of volumes that are on one node. All who read a volume are there, too: its
// topology keeps their pods on the node.
var servedModes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// readingModes are those in which nobody writes.
var readingModes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

var fileSystems = []string{"", "btrfs", "ext4", "xfs"}

// parseCapabilities joins capabilities: the volume has to satisfy all of them.
func parseCapabilities(caps ...*csi.VolumeCapability) (wanted, error) {
	if len(caps) == 0 {
		return wanted{}, invalid("volume capabilities are missing")
	}

	var w wanted
	for _, c := range caps {
		if c == nil {
			return wanted{}, invalid("volume capability is missing")
		}
		if err := errors.Join(w.addMode(c), w.addAccess(c), w.addMount(c.GetMount())); err != nil {
			return wanted{}, err
		}
	}

	// A device is written to through its node, whatever the mount of the node allows.
	if w.readOnly && w.access == volume.Block {
		return wanted{}, invalid("an access mode in which nobody writes is not kept by raw block volumes;" +
			" have a volume with a file system, or one who writes, and readOnly in the pods that read")
	}

	return w, nil
}

func (w *wanted) addMode(c *csi.VolumeCapability) error {
	mode := c.GetAccessMode().GetMode()
	if !slices.Contains(servedModes, mode) {
		return invalid("access mode %s: a volume of this driver is on one node", mode)
	}
	w.readOnly = w.readOnly || slices.Contains(readingModes, mode)
	w.singleWriter = w.singleWriter || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	return nil
}

func (w *wanted) addAccess(c *csi.VolumeCapability) error {
	access := volume.Filesystem
	switch {
	case c.GetBlock() != nil:
		access = volume.Block
	case c.GetMount() == nil:
		return invalid("volume capability has neither mount nor block access")
	}

	if w.access != "" && w.access != access {
		return invalid("one volume cannot have mount and block access")
	}

	w.access = access
	return nil
}

// addMount adds the properties of a mount; a raw block volume has none (nil).
func (w *wanted) addMount(m *csi.VolumeCapability_MountVolume) error {
	fs := m.GetFsType()
	switch {
	case !slices.Contains(fileSystems, fs):
		return invalid("file system %q; known are btrfs, ext4 and xfs", fs)
	case fs != "" && w.fsType != "" && fs != w.fsType:
		return invalid("file systems %s and %s for one volume", w.fsType, fs)
	}

	if err := w.addGroup(m.GetVolumeMountGroup()); err != nil {
		return err
	}

	w.fsType = cmp.Or(w.fsType, fs)
	w.options = append(w.options, m.GetMountFlags()...)
	return nil
}

// addGroup adds the group that files are to belong to, a number; "": none is asked for.
func (w *wanted) addGroup(group string) error {
	if group == "" {
		return nil
	}

	// The largest number says "no group" to the kernel.
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil || gid == math.MaxUint32 {
		return invalid("volume mount group %q, which is not the number of one", group)
	}
	w.group = new(int64(gid))
	return nil
}

// use is how a pod wants the volume.
func (w wanted) use(readOnly bool) publish.Use {
	return publish.Use{
		Access:       w.access,
		FSType:       w.fsType,
		Options:      w.options,
		ReadOnly:     readOnly || w.readOnly,
		SingleWriter: w.singleWriter,
		Group:        w.group,
	}
}

// page is a part of a list, in the order of IDs.
type page struct {
	after string // last ID of the page before; "": it is the first
	limit int    // 0: all of them
}

// tokenPrefix begins every page token of this driver; after it comes the last ID of the page before, so that
// there may be more or fewer entries by the time the next page is asked for.
const tokenPrefix = "after:"

func parsePage(maxEntries int32, token string) (page, error) {
	if maxEntries < 0 {
		return page{}, invalid("max entries is %d", maxEntries)
	}
	if token == "" {
		return page{limit: int(maxEntries)}, nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || volume.CheckID(after) != nil {
		return page{}, errAborted
	}
	return page{after: after, limit: int(maxEntries)}, nil
}

// ask is how many entries to ask for: one more than the page has says whether there is a next one.
func (p page) ask() int {
	if p.limit == 0 {
		return 0
	}
	return p.limit + 1
}

// cut returns the entries of the page, and the token of the next one, "" if there is none.
func (p page) cut(found []volume.Volume) (entries []volume.Volume, next string) {
	if p.limit == 0 || len(found) <= p.limit {
		return found, ""
	}
	return found[:p.limit], tokenPrefix + found[p.limit-1].ID
}
