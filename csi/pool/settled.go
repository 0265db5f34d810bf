package pool

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/internal/durable"
)

// After a power loss the pool is mounted in the state of its last transaction, and mounting may commit the next one, with what the log of
// synced files holds. A volume that was made in that next one is missing then, although the pool has reached its number. So the number is written
// down before the pool is mounted, and kept until all volumes are recovered (Commit): a process that is killed on the way leaves it to the
// next one.

func (p *Pool) notePath() string { return filepath.Join(p.cfg.Dir, "pool.settled") }

func (p *Pool) note() error {
	if _, err := os.Stat(p.notePath()); !os.IsNotExist(err) {
		return err // a recovery was cut short: what it started from counts
	}
	generation, err := generationOf(p.image)
	if err != nil {
		return err
	}
	return durable.WriteFile(p.notePath(), []byte(strconv.FormatUint(generation, 10)+"\n"), 0o600)
}

func (p *Pool) readNote() (uint64, error) {
	text, err := os.ReadFile(p.notePath())
	if err != nil {
		return 0, err
	}
	generation, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", p.notePath(), err)
	}
	return generation, nil
}

// generationOf reads the number of the last transaction from the superblock of a file system that is not mounted.
func generationOf(image string) (uint64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var super [16]byte // magic and generation
	if _, err := f.ReadAt(super[:], 64<<10+64); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", image, err)
	}
	if magic := string(super[:8]); magic != "_BHRfS_M" {
		return 0, fmt.Errorf("%s holds no btrfs (magic %q)", image, magic)
	}
	return binary.LittleEndian.Uint64(super[8:]), nil
}
