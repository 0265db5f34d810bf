package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/internal/durable"
)

// After a power loss the pool is mounted in the state of its last transaction, and mounting may commit the
// next one, with what the log of synced files holds. A volume that was made in that next one is missing then,
// although the pool has reached its number. So the number is written down before the pool is mounted, and
// kept until all volumes are recovered (Commit): a process that is killed on the way leaves it to the next
// one.
//
// The note is kept in one file that is written over in place, for there may be no room for another one when
// it is needed. Where even that is impossible it is kept in memory: then a process that is killed on the way
// finds volumes damaged that could have been made anew.

func (p *Pool) notePath() string { return filepath.Join(p.cfg.Dir, "pool.settled") }

// noNote, in the place of a transaction, says that the last recovery was finished. To earlier versions it
// says that nothing is missing for a good reason.
const noNote = math.MaxUint64

// note finds out what was on disk before the pool is mounted, and writes it down.
func (p *Pool) note() error {
	known, found, err := p.noted()
	if err != nil {
		return err
	}

	if found {
		// a recovery was cut short: what it started from counts
		p.settled = known
		return nil
	}

	if p.settled, err = generationOf(p.image); err != nil {
		return err
	}
	if err := p.writeNote(p.settled); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}

	return nil
}

// readNote does so for a pool that was found mounted.
func (p *Pool) readNote() error {
	known, found, err := p.noted()
	if err != nil || found {
		p.settled = known
		return err
	}

	root, err := os.Open(p.root)
	if err != nil {
		return err
	}
	defer root.Close()

	info, err := btrfs.Stat(root)
	p.settled = info.Generation
	return err
}

// noted reads the note, if there is one.
func (p *Pool) noted() (generation uint64, found bool, err error) {
	text, err := os.ReadFile(p.notePath())
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	generation, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)

	// a torn one counts as none
	return generation, err == nil && generation != noNote, nil
}

func (p *Pool) writeNote(generation uint64) error {
	f, err := os.OpenFile(p.notePath(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// It is always as long, so it never needs another block.
	if _, err := fmt.Fprintf(f, "%-20d\n", generation); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}

	return durable.SyncDir(p.cfg.Dir)
}

// clearNote is called when all volumes are recovered.
func (p *Pool) clearNote() error {
	_, found, err := p.noted()
	if err != nil || !found {
		return err
	}
	return p.writeNote(noNote)
}

// generationOf reads the number of the last transaction from the superblock of a file system that is not
// mounted.
func generationOf(image string) (uint64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()

	// magic and generation
	var super [16]byte
	if _, err := f.ReadAt(super[:], 64<<10+64); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", image, err)
	}
	if magic := string(super[:8]); magic != "_BHRfS_M" {
		return 0, fmt.Errorf("%s holds no btrfs (magic %q)", image, magic)
	}

	return binary.LittleEndian.Uint64(super[8:]), nil
}
