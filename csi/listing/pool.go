package listing

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/internal/units"
)

// Pool is what holds the volumes of a node, in bytes.
type Pool struct {
	Pool   Holder `json:"pool"`
	Images Holder `json:"images"`
	Quota  Holder `json:"quota"`
	Disk   Disk   `json:"disk"`

	// Promisable is how large the next volume may be, by backend, as a driver that runs says.
	Promisable map[string]int64 `json:"promisable"`
}

// Holder is what holds the volumes of a backend.
type Holder struct {
	Path      string `json:"path"`
	State     string `json:"state"` // mounted, readOnly, notMounted, missing; others: ready, off
	Quota     string `json:"quota,omitempty"`
	Size      int64  `json:"size"` // taken from the disk
	Used      int64  `json:"used"` // with something in it
	Free      int64  `json:"free"` // of Size
	Promised  int64  `json:"promised"`
	Volumes   int    `json:"volumes"`
	Snapshots int    `json:"snapshots"`
}

// Disk is the one below.
type Disk struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	Free    int64  `json:"free"`
	Reserve int64  `json:"reserve"` // that volumes never get
}

// PoolOf returns what holds the volumes. Nobody may have been asked what is promisable.
func PoolOf(s survey.Survey, reserve int64, promisable map[string]int64) Pool {
	p := Pool{
		Pool:   poolHolder(s),
		Images: Holder{Path: s.DataDir + "/images", State: "ready"},
		Quota:  quotaHolder(s),
		Disk: Disk{
			Path:    s.DataDir,
			Size:    s.Disk.Size,
			Free:    s.Disk.Free,
			Reserve: reserve,
		},
		Promisable: promisable,
	}
	for _, file := range s.Images {
		p.Images.Size += file.Allocated
		p.Images.Used += file.Allocated
	}

	holders := map[string]*Holder{
		btrfspool.Name: &p.Pool,
		loopfile.Name:  &p.Images,
		quotadir.Name:  &p.Quota,
	}
	for _, r := range s.Records {
		h := holders[r.Backend]
		switch {
		case h == nil:
		case r.Snapshot:
			h.Snapshots++
		default:
			h.Volumes++
		}
	}
	for backend, bytes := range s.Promised() {
		if h := holders[backend]; h != nil {
			h.Promised = bytes
		}
	}
	return p
}

func poolHolder(s survey.Survey) Holder {
	h := Holder{Path: s.Pool.Path, State: "notMounted", Quota: string(s.Pool.Quota)}
	if s.Pool.InDisk {
		h.Path = s.Pool.Root
	}
	if s.Pool.Is != nil {
		h.Size = s.Pool.Is.Size
	}

	switch {
	case s.Pool.Open && s.Pool.ReadOnly:
		h.State = "readOnly"
	case s.Pool.Open:
		h.State = "mounted"
	case s.Pool.Is == nil:
		h.State = "missing"
	}
	if s.Pool.Open && !s.Pool.InDisk {
		h.Used, h.Free = s.Pool.Room.Content(), s.Pool.Room.Free()
	}
	return h
}

// quotaHolder is the directories with project quotas: off where the disk has none.
func quotaHolder(s survey.Survey) Holder {
	h := Holder{Path: s.Quota.Root, State: "off"}
	if s.Quota.Disk.Holds {
		h.State, h.Quota = "ready", "project quotas of "+s.Quota.Disk.FileSystem
	}
	for _, v := range s.Quota.Volumes {
		h.Size += v.Used
		h.Used += v.Used
	}
	return h
}

// PoolTable writes what holds the volumes as tables.
func PoolTable(to io.Writer, p Pool) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKEND\tPATH\tSTATE\tSIZE\tUSED\tFREE\tPROMISED\tVOLUMES\tSNAPSHOTS")
	for _, row := range []struct {
		backend string
		Holder
	}{{btrfspool.Name, p.Pool}, {loopfile.Name, p.Images}, {quotadir.Name, p.Quota}} {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", row.backend, row.Path, row.State,
			units.Bytes(row.Size), units.Bytes(row.Used), units.Bytes(row.Free), units.Bytes(row.Promised),
			row.Volumes, row.Snapshots)
	}
	if err := w.Flush(); err != nil {
		return err
	}

	fmt.Fprintf(to, "\ndisk of %s: %s, %s free, %s in reserve\n", p.Disk.Path, units.Bytes(p.Disk.Size),
		units.Bytes(p.Disk.Free), units.Bytes(p.Disk.Reserve))
	for _, backend := range slices.Sorted(maps.Keys(p.Promisable)) {
		next := units.Bytes(p.Promisable[backend])
		fmt.Fprintf(to, "the next volume of backend %s may have %s\n", backend, next)
	}
	return nil
}
