package pool

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// overhead is what btrfs keeps for itself, as measured with volumes filled to their limits, many small files
// included: checksums and trees below 5 %, the system and log chunks a fixed amount.
func overhead(size int64) int64 { return size/20 + 128<<20 }

// Space implements volume.Maker.
func (p *Pool) Space(promised volume.Promised) (volume.Space, error) {
	if err := p.enter(); err != nil {
		return volume.Space{}, err
	}
	defer p.leave()

	// the sum of all limits
	most := promised.Bytes + promised.Count*limit(0) + promised.Bytes/128
	if p.image == "" {
		return p.spaceOnDisk(promised.Specs(), most)
	}

	var st unix.Stat_t
	if err := unix.Stat(p.image, &st); err != nil {
		return volume.Space{}, &os.PathError{Op: "stat", Path: p.image, Err: err}
	}

	held, err := p.heldNow()
	if err != nil {
		return volume.Space{}, err
	}

	return volume.Space{Limit: st.Size - overhead(st.Size) - held, Unwritten: max(0, most-st.Blocks*512)}, nil
}

const countAgain = 10 * time.Second

// heldNow is how many bytes of deleted volumes live on in others, by reflink. To count them takes a look at
// every quota group.
func (p *Pool) heldNow() (int64, error) {
	if p.quota != btrfs.SimpleQuota {
		// qgroups charge them to everyone who has them
		return 0, nil
	}

	p.counting.Lock()
	defer p.counting.Unlock()

	if time.Since(p.heldAt) < countAgain {
		return p.held, nil
	}

	held, err := btrfs.Held(p.volumes, p.info)
	if err != nil {
		return 0, fmt.Errorf("count what deleted volumes of %s hold: %w", p.root, err)
	}

	p.held, p.heldAt = held, time.Now()
	return held, nil
}

// spaceOnDisk counts for a pool that shares a btrfs disk with others.
func (p *Pool) spaceOnDisk(specs []volume.Spec, most int64) (volume.Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(p.root, &fs); err != nil {
		return volume.Space{}, &os.PathError{Op: "statfs", Path: p.root, Err: err}
	}

	unwritten := most
	for _, s := range specs {
		used, err := p.used(s.ID)
		if err != nil {
			// being made or deleted: counted as unwritten
			continue
		}

		unwritten -= min(used, limit(s.Size))
	}

	size := int64(fs.Blocks) * fs.Bsize
	if p.cfg.Size > 0 {
		size = min(size, p.cfg.Size)
	}

	return volume.Space{Limit: size - overhead(size), Unwritten: unwritten}, nil
}

func (p *Pool) used(id string) (int64, error) {
	root, err := btrfs.Open(p.volumes, id)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	sub, err := btrfs.Inspect(root)
	if err != nil {
		return 0, err
	}
	return btrfs.Usage(p.info, sub)
}
