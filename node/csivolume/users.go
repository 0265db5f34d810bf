package csivolume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/csivolume/record"
	"github.com/trivet-node/trivet/node/csivolume/staging"
)

// used reports whether a pod of this node has a volume that is staged, by what is in the pods' directories.
// Several persistent volumes may have one handle, and share its staging then. What cannot be read is an
// error: a volume that may be used is not unstaged.
func (m *Mounter) used(s staging.Place) (bool, error) { return m.usedBeside(s, &place{}) }

// usedBeside is used without the use that is one pod's own.
func (m *Mounter) usedBeside(s staging.Place, own *place) (bool, error) {
	pods, err := names(filepath.Join(m.cfg.Root, "pods"))
	if err != nil {
		return false, fmt.Errorf("look for users of volume %s: %w", s.Handle, err)
	}

	for _, pod := range pods {
		used, err := m.usedBy(types.UID(pod), s, own)
		if err != nil {
			return false, fmt.Errorf("look whether pod %s uses volume %s: %w", pod, s.Handle, err)
		}
		if used {
			return true, nil
		}
	}

	return false, nil
}

// usedBy reports whether a pod has a volume that is staged, other than as its own.
func (m *Mounter) usedBy(pod types.UID, s staging.Place, own *place) (bool, error) {
	if s.Spec != "" {
		link := m.place(pod, s.Spec, s.Driver, s.Handle, true).link
		_, err := os.Lstat(link)
		if isAbsent(err) {
			return false, nil
		}
		return err == nil && link != own.link, err
	}

	dir := m.volumesOf(pod, false)
	volumes, err := names(dir)
	if err != nil {
		return false, err
	}

	for _, volume := range volumes {
		at := filepath.Join(dir, volume)
		if at == own.dir {
			continue
		}

		r, found, err := record.Read(filepath.Join(at, record.File))
		if err != nil {
			return false, err
		}
		if found && r.Driver == s.Driver && r.Handle == s.Handle {
			return true, nil
		}
	}

	return false, nil
}

// volumesOf is the directory of the pod's volumes of CSI drivers, or of its links to devices.
func (m *Mounter) volumesOf(pod types.UID, block bool) string {
	kind := "volumes"
	if block {
		kind = "volumeDevices"
	}
	return filepath.Join(m.cfg.Root, "pods", string(pod), kind, plugin)
}

// names are those of the entries of a directory that need not be there: most pods have no volume of a driver,
// and some go meanwhile.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !isAbsent(err) {
		return nil, err
	}

	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// isAbsent reports whether an error says that there is nothing of that path.
func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// adopt enters what an earlier agent or kubelet has left: volumes that are in use, of pods or staged, and
// those that are staged for nobody, which are to be unstaged.
func (m *Mounter) adopt() error {
	staged, unread, err := staging.List(m.cfg.Root)
	if err != nil {
		return err
	}
	for _, err := range unread {
		m.cfg.Log.Warn("volume may stay staged", "err", err)
	}

	used, err := m.adoptPods()
	if err != nil {
		return err
	}

	for _, s := range staged {
		m.cfg.InUse.Hold(s.Driver, s.Handle, s.Path)
		if !used[s.Path] {
			m.unstager.Look(s)
		}
	}

	m.cfg.InUse.Begin(m.cfg.Objects.NeedsAttach)
	return nil
}

// adoptPods enters the volumes that pods have. It returns the paths where they are staged.
func (m *Mounter) adoptPods() (map[string]bool, error) {
	pods, err := names(filepath.Join(m.cfg.Root, "pods"))
	if err != nil {
		return nil, fmt.Errorf("look for volumes of pods: %w", err)
	}

	used := map[string]bool{}
	for _, pod := range pods {
		for _, block := range []bool{false, true} {
			specs, err := names(m.volumesOf(types.UID(pod), block))
			if err != nil {
				return nil, fmt.Errorf("look for volumes of pod %s: %w", pod, err)
			}

			for _, spec := range specs {
				p := m.place(types.UID(pod), spec, "", "", block)
				r, found, err := record.Read(filepath.Join(p.dir, record.File))
				if err != nil {
					m.cfg.Log.Warn("volume of a pod is not known", "pod", pod, "volume", spec, "err", err)
				}
				if err != nil || !found {
					continue
				}

				p = m.place(types.UID(pod), spec, r.Driver, r.Handle, block)
				used[p.staging.Path] = true
				if r.Lifecycle != string(ephemeral) {
					m.cfg.InUse.Hold(r.Driver, r.Handle, pod)
				}
			}
		}
	}

	return used, nil
}
