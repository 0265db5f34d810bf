package podworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
)

// link shows an instance's log where kubelet does, for those who collect logs:
// LINKS/NAME_NAMESPACE_CONTAINER-ID.log.
func (w *Worker) link(pod *v1.Pod, container string, attempt uint32, id string) error {
	log := filepath.Join(criconfig.LogDir(w.Node.LogRoot, pod), criconfig.LogPath(container, attempt))
	if err := os.Symlink(log, w.linkPath(pod, container, id)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link log of container %s: %w", id, err)
	}
	return nil
}

func (w *Worker) linkPath(pod *v1.Pod, container, id string) string {
	// file names on Linux; names of pods may be as long
	const longest = 255 - len(".log")
	name := pod.Name + "_" + pod.Namespace + "_" + container + "-" + id
	return filepath.Join(w.Links, name[:min(len(name), longest)]+".log")
}

// logged is, for each container of a static pod, the attempt that follows those whose logs are there: after a
// reboot nothing else may tell of them, neither the runtime nor, yet, the API.
func (w *Worker) logged(pod *v1.Pod, observed plan.Observed) map[string]uint32 {
	if !podsource.Static(pod) || len(observed.Containers) > 0 {
		return nil
	}

	out := map[string]uint32{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		entries, err := os.ReadDir(filepath.Join(criconfig.LogDir(w.Node.LogRoot, pod), c.Name))
		if err != nil {
			// no logs, no earlier attempts
			continue
		}

		for _, e := range entries {
			number, _, _ := strings.Cut(e.Name(), ".log")
			if attempt, err := strconv.ParseUint(number, 10, 31); err == nil {
				out[c.Name] = max(out[c.Name], uint32(attempt)+1)
			}
		}
	}

	return out
}

// removeContainer removes an instance with its logs, rotated ones and the link included, and its termination
// message.
func (w *Worker) removeContainer(ctx context.Context, in plan.Input, id string) error {
	if err := w.runtime.RemoveContainer(ctx, id); err != nil {
		return err
	}

	for _, c := range in.Observed.Containers {
		if c.ID != id || c.Name == "" || filepath.Base(c.Name) != c.Name {
			continue
		}

		log := filepath.Join(criconfig.LogDir(w.Node.LogRoot, in.Pod), criconfig.LogPath(c.Name, c.Attempt))
		files, err := filepath.Glob(log + "*")
		if err != nil {
			return err
		}

		for _, f := range append(
			files,
			w.linkPath(in.Pod, c.Name, c.ID),
			filepath.Join(w.podDir(in.Pod), "containers", c.Name, messageFile(c.Attempt)),
		) {
			if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}

	return nil
}

// farewell removes the logs of a pod that is gone.
func (w *Worker) farewell(pod *v1.Pod) error {
	dirs := []string{criconfig.LogDir(w.Node.LogRoot, pod)}

	// found by its UID only
	if pod.Name == "unknown" {
		found, err := filepath.Glob(filepath.Join(w.Node.LogRoot, "*_"+string(pod.UID)))
		if err != nil {
			return err
		}

		dirs = found
	}

	for _, d := range dirs {
		if err := removal.Tree(d); err != nil {
			return err
		}
	}

	return w.deadLinks()
}

// deadLinks removes the links to logs of pods that have none any more. A log that is missing is no sign: it
// may be rotated just now.
func (w *Worker) deadLinks() error {
	links, err := os.ReadDir(w.Links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	var errs []error
	for _, l := range links {
		path := filepath.Join(w.Links, l.Name())
		target, err := os.Readlink(path)
		if err != nil {
			// not ours, or just gone
			continue
		}

		pod, ours := strings.CutPrefix(target, filepath.Clean(w.Node.LogRoot)+string(filepath.Separator))
		pod, _, _ = strings.Cut(pod, string(filepath.Separator))
		if !ours {
			continue
		}
		if _, err := os.Lstat(filepath.Join(w.Node.LogRoot, pod)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}

	return errors.Join(errs...)
}

// OrphanLogs removes the logs of all pods for which keep is false: an agent that was killed after it had
// removed a pod's sandbox did not come to its logs any more. Call it when all pods of the node are known.
func (w *Worker) OrphanLogs(keep func(types.UID) bool) error {
	dirs, err := os.ReadDir(w.Node.LogRoot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	var errs []error
	for _, d := range dirs {
		// NAMESPACE_NAME_UID
		parts := strings.SplitN(d.Name(), "_", 3)
		if len(parts) == 3 && d.IsDir() && !keep(types.UID(parts[2])) {
			errs = append(errs, removal.Tree(filepath.Join(w.Node.LogRoot, d.Name())))
		}
	}

	return errors.Join(append(errs, w.deadLinks())...)
}
