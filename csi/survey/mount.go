package survey

import (
	"path"
	"strings"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Mount is a mount of a volume, or of something in it.
type Mount struct {
	ID    string // of the volume
	Point string
	Whole bool // it is the volume's root
}

// mountsOf returns the mounts of volumes in the mount namespace of the caller.
func mountsOf(p Pool, devices []Device) ([]Mount, error) {
	table, err := mountinfo.Self()
	if err != nil {
		return nil, err
	}

	byNumber := map[string]string{}
	for _, d := range devices {
		if d.Thing != "pool" {
			byNumber[d.Number] = d.Thing
		}
	}

	number, dir := p.inTable(table)
	var mounts []Mount
	for _, m := range table {
		if id := byNumber[m.Device]; id != "" {
			mounts = append(mounts, Mount{ID: id, Point: m.Point, Whole: m.Root == "/"})
			continue
		}

		below, in := strings.CutPrefix(m.Root, dir+"/")
		if in && m.Device == number {
			id, rest, _ := strings.Cut(below, "/")
			mounts = append(mounts, Mount{ID: id, Point: m.Point, Whole: rest == ""})
		}
	}
	return mounts, nil
}

// inTable returns the number of the pool's file system in a table of mounts, and the directory of volumes in
// that file system; "" if the pool is not open. stat(2) has another number for each subvolume.
func (p Pool) inTable(table []mountinfo.Mount) (number, dir string) {
	if !p.Open {
		return "", ""
	}

	var on mountinfo.Mount
	for _, m := range table {
		covers := m.Point == p.Root || m.Point == "/" || strings.HasPrefix(p.Root, m.Point+"/")
		if covers && len(m.Point) >= len(on.Point) {
			on = m
		}
	}
	return on.Device, path.Join(on.Root, strings.TrimPrefix(p.Root, on.Point), "volumes")
}
