package localstorage

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/diskusage"
	"github.com/trivet-node/trivet/node/podlog"
)

const (
	// logDelay is how long after a container has written the runtime may write it to the log.
	logDelay = 5 * time.Second

	// logAge is how old figures of logs may be at most: logs of instances that are gone are removed.
	logAge = time.Minute
)

// logged is what the logs of a pod take.
type logged struct {
	at         time.Time
	activity   int64
	containers map[string]Usage
	rest       Usage
}

// logs measures the logs of a pod's containers, of all instances of each, and what belongs to the pod as a
// whole. Nothing is looked at while the pod does not run.
func (m *Meter) logs(pod *v1.Pod, containers map[string]Usage, activity int64) logged {
	m.mu.Lock()
	k := m.known[pod.UID]
	m.mu.Unlock()

	old := k.logged
	known := activity != diskusage.Unknown && old.activity == activity && old.at.After(k.since.Add(logDelay))
	if known && time.Since(old.at) < logAge {
		return old
	}

	dir := podlog.Dir(m.cfg.Logs.Root, pod)
	out := logged{at: time.Now(), activity: activity, containers: map[string]Usage{}}
	for name := range containers {
		out.containers[name] = files(filepath.Join(dir, name))
	}

	out.rest = files(dir)
	out.rest.add(filepath.Join(m.cfg.Root, "pods", string(pod.UID), "etc-hosts"))

	m.mu.Lock()
	defer m.mu.Unlock()

	if k, found := m.known[pod.UID]; found {
		k.logged = out
		m.known[pod.UID] = k
	}

	return out
}

// maxFiles bounds the files of a directory of logs that are looked at. The runtime and the agent, which make
// them, keep a few.
const maxFiles = 1 << 12

// files adds up the files in a directory, without those in directories below. As with kubelet the directory
// itself does not count.
func files(dir string) Usage {
	out := Usage{Time: time.Now()}
	f, err := os.Open(dir)
	if err != nil {
		return out
	}
	defer f.Close()

	// An error is that of an empty directory, or of one that is being removed.
	names, _ := f.Readdirnames(maxFiles)
	for _, name := range names {
		out.add(filepath.Join(dir, name))
	}

	return out
}

// add counts a file. What is gone, or is a directory, takes nothing.
func (u *Usage) add(path string) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	u.Bytes += uint64(st.Blocks) * 512
	u.Inodes++
}
