package quotadir

import (
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// Numbers of projects are from firstNumber on, below twice that: those of administrators and of kubelet are
// smaller, those that are only counted (projectquota.Assign) larger. Each data directory begins somewhere
// else. The lowest free one is taken, for xfs keeps a block for each number that was ever used.
const (
	firstNumber = 1 << 29
	endNumber   = 2 * firstNumber
	stride      = 1 << 16
	strides     = (endNumber - firstNumber) / stride
)

// nameOf is the name of the directory of a volume.
func nameOf(id string, project uint32) string {
	return id + "." + strconv.FormatUint(uint64(project), 10)
}

// Parse returns the volume and the project that the name of a directory says.
func Parse(name string) (id string, project uint32, ok bool) {
	id, text, found := strings.Cut(name, ".")
	n, err := strconv.ParseUint(text, 10, 32)
	if !found || err != nil || volume.CheckID(id) != nil || nameOf(id, uint32(n)) != name {
		return "", 0, false
	}
	return id, uint32(n), n >= firstNumber && n < endNumber
}

// IDOf returns the volume that a directory of that name is of; the name itself if it is none of a volume.
func IDOf(name string) string {
	if id, _, ok := Parse(name); ok {
		return id
	}
	return name
}

// numbers are those of the projects of volumes. It is safe for concurrent use.
type numbers struct {
	// mu guards what follows; held while the kernel is asked whether a number is free.
	mu     sync.Mutex
	byID   map[string]uint32
	taken  map[uint32]int // how many directories say so, those of deleted volumes included
	lowest uint32         // none below is free
}

func newNumbers(instance string) *numbers {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(instance))
	return &numbers{
		byID:   map[string]uint32{},
		taken:  map[uint32]int{},
		lowest: firstNumber + hash.Sum32()%strides*stride,
	}
}

// found enters a number that the name of a directory says. Of two directories of a volume one is left alone.
func (n *numbers) found(id string, project uint32, isVolume bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[project]++
	if other, known := n.byID[id]; isVolume && (!known || project < other) {
		n.byID[id] = project
	}
}

func (n *numbers) of(id string) (project uint32, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	project, known = n.byID[id]
	return project, known
}

// isShared reports whether several directories say the same number, as one that was copied by hand does.
func (n *numbers) isShared(project uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.taken[project] > 1
}

// leaveShared says that one of several directories of a number is gone.
func (n *numbers) leaveShared(project uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[project] = max(1, n.taken[project]-1)
}

func (n *numbers) ids() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.byID))
}

// take gives a volume a number that nobody on the file system of a directory uses, or has set limits for.
func (n *numbers) take(dir, id string) (uint32, error) {
	disk, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	named := administrators()

	n.mu.Lock()
	defer n.mu.Unlock()
	for project := n.lowest; project < endNumber; project++ {
		if n.taken[project] > 0 || named[project] {
			continue
		}
		used, limits, err := projectquota.Look(disk, project)
		if err != nil {
			return 0, err
		}
		if used != (projectquota.Usage{}) || limits != (projectquota.Limits{}) {
			continue
		}

		n.lowest = project + 1
		n.taken[project] = 1
		n.byID[id] = project
		return project, nil
	}
	return 0, fmt.Errorf("%w: no number of a project is free", volume.ErrUnavailable)
}

// leave says that a volume is gone. Its number is not free before the last of it is.
func (n *numbers) leave(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byID, id)
}

func (n *numbers) free(project uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taken, project)
	n.lowest = min(n.lowest, project)
}

// administrators returns the numbers that are in the files of xfs_quota(8) and of quota-tools, as far as they
// can be read.
func administrators() map[uint32]bool {
	const limit = 1 << 20
	all := map[uint32]bool{}
	for path, field := range map[string]int{"/etc/projects": 0, "/etc/projid": 1} {
		if data, err := boundedfile.ReadLinked(path, limit); err == nil {
			numbersIn(string(data), field, all)
		}
	}
	return all
}

// numbersIn collects the numbers in a field of lines such as NUMBER:PATH and NAME:NUMBER.
func numbersIn(text string, field int, into map[uint32]bool) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if field >= len(fields) {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(fields[field]), 10, 32); err == nil {
			into[uint32(n)] = true
		}
	}
}
