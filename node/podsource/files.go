package podsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/manifest"
)

// maxManifest bounds a manifest, as in kubelet.
const maxManifest = 10 << 20

// Files are the manifests of static pods in a directory, or in a single file.
type Files struct {
	Source *Source
	Path   string
	Node   string

	last map[string]understood // by file
}

// understood is what a file said when it could be read, and the pod that was.
type understood struct {
	data []byte
	pod  *v1.Pod
}

// Load makes the pods in the files known. It comes before the pods are worked on: whatever runs and is not
// known then counts as a pod that is gone.
func (f *Files) Load() {
	f.Source.Expect(manifest.SourceFile)
	f.read()
}

// How long after the last look the files are read again without an event: inotify loses events when its queue
// overflows, knows nothing of files changed on another machine, and cannot follow what is not there yet.
const (
	readAgain   = 20 * time.Second
	lookForPath = time.Second
)

// Follow reads the files whenever they change until ctx ends. The path may be missing, come and go.
func (f *Files) Follow(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch static pods: %w", err)
	}
	defer watcher.Close()

	for {
		wait := readAgain

		// again each time: a watch ends with what it is of
		if err := watcher.Add(f.Path); err != nil {
			wait = lookForPath
			if !errors.Is(err, fs.ErrNotExist) {
				f.Source.tellOnce(f.Path, err.Error())
			}
		}

		f.read()

		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of static pods ended")
			}

		case err := <-watcher.Errors:
			f.Source.log.Warn("events of static pods were lost", "path", f.Path, "err", err)
		case <-again.C:
		}

		again.Stop()
	}
}

// read makes the static pods those of the files. A file that cannot be read or is half written keeps the pod
// it had.
func (f *Files) read() {
	files, err := manifests(f.Path)
	if err != nil {
		f.Source.tellOnce(f.Path, err.Error())
		return
	}

	now := map[string]understood{}
	var found []*v1.Pod
	for _, file := range files {
		next, err := f.understand(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			f.Source.tellOnce(file, err.Error())
			next = f.last[file]
		}

		if next.pod != nil {
			now[file] = next
			found = append(found, next.pod.DeepCopy())
		}
	}

	f.last = now
	f.Source.setStatic(manifest.SourceFile, found)
}

// understand reads a file. One that says what it said before is not decoded again.
func (f *Files) understand(file string) (understood, error) {
	data, err := boundedfile.ReadLinked(file, maxManifest)
	if err != nil {
		return understood{}, err
	}
	if last := f.last[file]; last.pod != nil && bytes.Equal(last.data, data) {
		return last, nil
	}

	pod, warnings, err := manifest.Pod(data, manifest.Origin{Node: f.Node, File: file})
	for _, w := range warnings {
		f.Source.tellOnce(file, w)
	}

	return understood{data, pod}, err
}

// manifests are the files at path, sorted. As for kubelet, all in a directory count whose names do not begin
// with a dot; it is not searched deeper, and a path that is not there has none.
func manifests(path string) ([]string, error) {
	path = strings.TrimRight(path, "/")
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("static pods: %w", err)
	case !info.IsDir():
		return []string{path}, nil
	}

	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("static pods: %w", err)
	}

	var out []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}

	return out, nil
}
