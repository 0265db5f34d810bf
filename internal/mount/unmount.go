package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Unmount removes all mounts stacked on path, lazily when busy, with what is mounted below. What is not
// mounted or not there is success.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil
		case errors.Is(err, unix.EBUSY):
			if err := detach(path); err != nil {
				return fmt.Errorf("unmount %s lazily: %w", path, err)
			}

		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// detach takes the uppermost mount on a path, and what is mounted below it, out of sight.
func detach(path string) error {
	t, err := tableOf(path)
	if err != nil {
		return err
	}
	if err := t.leavePeers(); err != nil {
		return err
	}

	err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Somebody else has unmounted it meanwhile.
		return nil
	}

	return err
}

// table is the mounts of this process, of which those at or below top are to be unmounted.
type table struct {
	top    string
	mounts []mountinfo.Mount
}

// tableOf reads it. The path to top may lead through symbolic links; top itself is not followed, nor touched:
// what is mounted there may not answer.
func tableOf(top string) (table, error) {
	// The kernel lists mount points by their paths without links.
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(top)))
	if errors.Is(err, os.ErrNotExist) {
		return table{}, nil
	}
	if err != nil {
		return table{}, err
	}

	mounts, err := mountinfo.Self()
	return table{filepath.Join(parent, filepath.Base(top)), mounts}, err
}

// has reports whether a mount is at or below top.
func (t table) has(m mountinfo.Mount) bool {
	return m.Point == t.top || strings.HasPrefix(m.Point, t.top+"/")
}

// points returns the mount points at or below top, deepest first.
func (t table) points() []string {
	// Later mounts cover earlier ones and children come after parents, so that in the reverse order each can
	// be unmounted.
	var points []string
	for _, m := range slices.Backward(t.mounts) {
		if t.has(m) {
			points = append(points, m.Point)
		}
	}
	return points
}

// leavePeers makes slaves of the mounts at or below top that have peers elsewhere, such as what they were
// bound from: the kernel unmounts what is below one mount below its peers as well (mount_namespaces(7)), and
// there it stays. Bind makes none such, but others do. Mounts with nothing below are not touched.
func (t table) leavePeers() error {
	byID, parents, groups := map[string]*mountinfo.Mount{}, map[string]bool{}, map[string][]*mountinfo.Mount{}
	for i := range t.mounts {
		m := &t.mounts[i]
		byID[m.ID] = m
		parents[m.Parent] = true
		if m.Peers != "" && !t.has(*m) {
			groups[m.Peers] = append(groups[m.Peers], m)
		}
	}

	slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
	for i := range t.mounts {
		m := &t.mounts[i]
		if !t.has(*m) || !parents[m.ID] {
			continue
		}

		stays := func(peer *mountinfo.Mount) bool {
			return !goesWith(m, peer, byID[m.Parent], byID[peer.Parent])
		}
		if !slices.ContainsFunc(groups[m.Peers], stays) {
			continue
		}

		err := unix.MountSetattr(unix.AT_FDCWD, m.Point, unix.AT_SYMLINK_NOFOLLOW, &slave)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("make %s a slave: %w", m.Point, err)
		}

		// What is mounted in it is no copy of what is mounted in its peers any more.
		m.Peers = ""
	}

	return nil
}

// goesWith reports whether a peer of a mount is unmounted with it: as its copy, at the same place of a peer
// of what the mount is mounted in.
func goesWith(m, peer, parent, parentOfPeer *mountinfo.Mount) bool {
	if parent == nil || parentOfPeer == nil || parent.Peers == "" || parent.Peers != parentOfPeer.Peers {
		return false
	}
	return placeIn(parent, m) == placeIn(parentOfPeer, peer)
}

// placeIn returns where a mount is in the file system of the one that it is mounted in.
func placeIn(parent, m *mountinfo.Mount) string {
	return filepath.Join(parent.Root, strings.TrimPrefix(m.Point, parent.Point))
}

// Below returns the mount points at or below dir, deepest first, from /proc/self/mountinfo. It is for
// clean-up and start-up, not for hot paths. The path to dir may lead through symbolic links. dir itself is
// not followed, nor touched: what is mounted there may not answer.
func Below(dir string) ([]string, error) {
	t, err := tableOf(dir)
	if err != nil {
		return nil, fmt.Errorf("mounts below %s: %w", dir, err)
	}
	return t.points(), nil
}

// UnmountBelow removes every mount at or below dir.
func UnmountBelow(dir string) error {
	t, err := tableOf(dir)
	if err != nil {
		return fmt.Errorf("mounts below %s: %w", dir, err)
	}
	if err := t.leavePeers(); err != nil {
		return fmt.Errorf("unmount what is below %s: %w", dir, err)
	}

	var errs []error
	for _, p := range t.points() {
		errs = append(errs, Unmount(p))
	}

	return errors.Join(errs...)
}
