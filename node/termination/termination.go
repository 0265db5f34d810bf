// Package termination makes, reads and removes the files in which containers leave a message about their end
// (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/): one file for each
// instance, PODDIR/containers/NAME/ATTEMPT, which is mounted into the container. What a container made of its
// file is not trusted.
package termination

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/podlog/containerlog"
)

// Limits of messages, as the API documents them.
const (
	maxMessage  = 4096
	maxLogBytes = 2048
	maxLogLines = 80
)

func file(podDir, container string, attempt uint32) string {
	return filepath.Join(podDir, "containers", container, fmt.Sprintf("%08x", attempt))
}

// Create makes the empty file of an instance and returns its path. podDir is the pod's directory below
// kubelet's root; whichever user the container runs as may write to the file.
func Create(podDir, container string, attempt uint32) (path string, err error) {
	path = file(podDir, container, attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}

	// An earlier try to start the instance may have made it, and then run as anything.
	const flags = os.O_CREATE | os.O_TRUNC | os.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return "", err
	}

	// The mode above is subject to the umask.
	if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
		return "", err
	}

	return path, nil
}

// Remove removes the file of an instance. One that is not there is a success.
func Remove(podDir, container string, attempt uint32) error {
	if filepath.Base(container) != container {
		// A container of a pod cannot have this name, which is from a label.
		return nil
	}
	err := os.Remove(file(podDir, container, attempt))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Ended is a container instance that has ended.
type Ended struct {
	Message string // what the runtime says of it
	File    string // the host's path of its message file; empty: it has none
	Log     string // path of its log

	// FallBackToLog: the end of the log stands for a message that was not left.
	FallBackToLog bool
}

// Text returns the message that users see: the runtime's and the container's own.
func (e Ended) Text() string {
	own := ""
	if e.File != "" {
		own = read(e.File)
	}
	if own == "" && e.FallBackToLog {
		own = containerlog.Last(e.Log, maxLogLines, maxLogBytes)
	}

	if e.Message != "" && own != "" {
		return e.Message + ": " + own
	}

	return e.Message + own
}

// read returns the end of a message file, empty if it cannot be read.
func read(path string) string {
	data, err := boundedfile.Tail(path, maxMessage)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(data), "?")
}
