// Package podlog knows where the logs of pods are, and links and removes them. The layout is kubelet's:
//
//	ROOT/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log            written by the container runtime
//	ROOT/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.TIME[.gz]  rotated
//	LINKS/NAME_NAMESPACE_CONTAINER-ID.log                    a link to the first, for those who collect logs
//
// What is in the files is read by podlog/containerlog, and podlog/logrotate keeps them small.
package podlog

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/removal"
)

// suffix of log files, and of links to them.
const suffix = ".log"

// longestName is how long the name of a file may be.
const longestName = 255

// Dir returns the directory of a pod's logs below root.
func Dir(root string, pod *v1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// File returns where the log of an instance is, below the directory of its pod.
func File(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+suffix)
}

// Logs are the log directories of a node.
type Logs struct {
	Root  string // /var/log/pods
	Links string // /var/log/containers
}

// Instance is one instance of a container of a pod.
type Instance struct {
	Pod       *v1.Pod
	Container string
	Attempt   uint32
	ID        string
}

func (l Logs) file(i Instance) string {
	return filepath.Join(Dir(l.Root, i.Pod), File(i.Container, i.Attempt))
}

// link is cut where the name of a file may end; names of pods may be as long as that.
func (l Logs) link(i Instance) string {
	const longest = longestName - len(suffix)
	name := i.Pod.Name + "_" + i.Pod.Namespace + "_" + i.Container + "-" + i.ID
	return filepath.Join(l.Links, name[:min(len(name), longest)]+suffix)
}

// MakeDir makes the directory of a container's logs.
func (l Logs) MakeDir(pod *v1.Pod, container string) error {
	return os.MkdirAll(filepath.Join(Dir(l.Root, pod), container), 0o755)
}

// Link makes the link to an instance's log. One that is there already is a success.
func (l Logs) Link(i Instance) error {
	if err := os.Symlink(l.file(i), l.link(i)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link log of container %s: %w", i.ID, err)
	}
	return nil
}

// NextAttempt returns the attempt that follows those of a container whose logs are there, 0 if there are
// none. After a reboot neither the runtime nor, for a static pod, the API may know of them.
func (l Logs) NextAttempt(pod *v1.Pod, container string) (next uint32) {
	for attempt := range l.attempts(Instance{Pod: pod, Container: container}) {
		next = max(next, attempt+1)
	}
	return next
}

// RemoveBefore removes the logs of the instances of a container that came before this one. The links to them
// stay, and lead nowhere.
func (l Logs) RemoveBefore(i Instance) error {
	var errs []error
	for attempt, file := range l.attempts(i) {
		if attempt < i.Attempt {
			errs = append(errs, removed(os.Remove(file)))
		}
	}
	return errors.Join(errs...)
}

// attempts yields the log files of a container, rotated ones included, by the attempts that wrote them.
func (l Logs) attempts(i Instance) iter.Seq2[uint32, string] {
	dir := filepath.Dir(l.file(i))
	return func(yield func(uint32, string) bool) {
		if filepath.Base(i.Container) != i.Container {
			// A container of a pod cannot have this name, which is from a label.
			return
		}

		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			number, _, _ := strings.Cut(e.Name(), suffix)
			attempt, err := strconv.ParseUint(number, 10, 31)
			if err == nil && !yield(uint32(attempt), filepath.Join(dir, e.Name())) {
				return
			}
		}
	}
}

// Remove removes the logs of an instance, rotated ones and the link included. What is not there is a success.
func (l Logs) Remove(i Instance) error {
	if filepath.Base(i.Container) != i.Container {
		// A container of a pod cannot have this name, which is from a label.
		return nil
	}

	files, err := filepath.Glob(l.file(i) + "*")
	if err != nil {
		return err
	}

	for _, f := range append(files, l.link(i)) {
		if err := removed(os.Remove(f)); err != nil {
			return err
		}
	}

	return nil
}

// removed is the error of a removal: what was not there is removed.
func removed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemovePod removes all logs of a pod, and the links to them.
func (l Logs) RemovePod(uid types.UID) error {
	return l.RemoveUnless(func(other types.UID) bool { return other != uid })
}

// RemoveUnless removes the logs of all pods for which keep is false, and the links to them: an agent that was
// killed between the removal of a pod's sandbox and that of its logs leaves some. Call it when all pods of
// the node are known.
func (l Logs) RemoveUnless(keep func(types.UID) bool) error {
	dirs, err := os.ReadDir(l.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	var errs []error
	for _, d := range dirs {
		parts := strings.SplitN(d.Name(), "_", 3)
		if len(parts) == 3 && d.IsDir() && !keep(types.UID(parts[2])) {
			errs = append(errs, removal.Tree(filepath.Join(l.Root, d.Name())))
		}
	}

	return errors.Join(append(errs, l.removeDeadLinks())...)
}

// RemoveDir removes all logs of a pod, but not the links to them. What is not there is a success.
func (l Logs) RemoveDir(pod *v1.Pod) error {
	dir := Dir(l.Root, pod)
	if filepath.Dir(dir) != filepath.Clean(l.Root) {
		// The UID of a static pod may be anything.
		return nil
	}
	return removal.Tree(dir)
}

// removeDeadLinks removes the links to logs of pods that have none any more. That the log itself is missing
// is not enough: it may be between two steps of a rotation.
func (l Logs) removeDeadLinks() error {
	links, err := os.ReadDir(l.Links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	root := filepath.Clean(l.Root) + string(filepath.Separator)
	var errs []error
	for _, link := range links {
		path := filepath.Join(l.Links, link.Name())
		target, err := os.Readlink(path)
		if err != nil {
			// It is not a link, or has been removed since it was listed.
			continue
		}

		below, ours := strings.CutPrefix(target, root)
		if !ours {
			continue
		}

		pod, _, _ := strings.Cut(below, string(filepath.Separator))
		if _, err := os.Lstat(filepath.Join(l.Root, pod)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}

	return errors.Join(errs...)
}
