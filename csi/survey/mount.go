package survey

import (
	"path"
	"strings"

	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Mount is a mount of a volume, or of something in it.
type Mount struct {
	ID    string // of the volume
	Point string
	Whole bool // it is the volume's root
}

// mountsOf returns the mounts of volumes in the mount namespace of the caller.
func mountsOf(p Pool, q Quota, devices []Device) ([]Mount, error) {
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

	holders := p.inTable(table)
	if len(q.Volumes) > 0 {
		holders = append(holders, placeOf(table, q.Root, quotadir.IDOf))
	}
	var mounts []Mount
	for _, m := range table {
		if id := byNumber[m.Device]; id != "" {
			mounts = append(mounts, Mount{ID: id, Point: m.Point, Whole: m.Root == "/"})
			continue
		}

		for _, h := range holders {
			below, in := strings.CutPrefix(m.Root, h.dir+"/")
			if in && m.Device == h.number {
				name, rest, _ := strings.Cut(below, "/")
				mounts = append(mounts, Mount{ID: h.idOf(name), Point: m.Point, Whole: rest == ""})
			}
		}
	}
	return mounts, nil
}

// place is a directory of volumes, as a table of mounts has it: in the file system of that number.
type place struct {
	number string
	dir    string
	idOf   func(name string) string // the volume that a directory of that name is of
}

// inTable returns the place of the pool's volumes, none if it is not open.
func (p Pool) inTable(table []mountinfo.Mount) []place {
	if !p.Open {
		return nil
	}
	return []place{placeOf(table, path.Join(p.Root, "volumes"), func(name string) string { return name })}
}

// placeOf finds a directory in a table of mounts. stat(2) has another number for each subvolume of btrfs.
func placeOf(table []mountinfo.Mount, dir string, idOf func(string) string) place {
	var on mountinfo.Mount
	for _, m := range table {
		covers := m.Point == dir || m.Point == "/" || strings.HasPrefix(dir, m.Point+"/")
		if covers && len(m.Point) >= len(on.Point) {
			on = m
		}
	}
	return place{number: on.Device, dir: path.Join(on.Root, strings.TrimPrefix(dir, on.Point)), idOf: idOf}
}
