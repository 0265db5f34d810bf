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

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/inotify"
	"github.com/trivet-node/trivet/node/manifest"
)

// maxManifest bounds a manifest, as in kubelet.
const maxManifest = 10 << 20

// Files are the manifests of static pods in a directory, or in a single file.
type Files struct {
	source *Source
	path   string
	last   map[string]parsed // by file
}

// parsed is what a file said when it could be read, and the pod that was.
type parsed struct {
	data []byte
	pod  *v1.Pod
}

// NewFiles reads the manifests at path. It comes before pods are worked on: what runs and is not known then
// counts as a pod that is gone.
func NewFiles(source *Source, path string) *Files {
	f := &Files{source: source, path: path}
	source.expect(manifest.SourceFile)
	f.read()
	return f
}

// How long after the last look the files are read again without an event: inotify loses events when its queue
// overflows, does not know of files changed on another machine, and cannot follow what does not exist yet.
const (
	readAgain   = 20 * time.Second
	lookForPath = time.Second
)

// Run reads the files whenever they change until ctx ends. The path may be missing, come and go.
func (f *Files) Run(ctx context.Context) error {
	watcher, err := inotify.Open(ctx, f.source.log, f.read)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch static pods: %w", err)
	}
	defer watcher.Close()

	for {
		// It is added each time, as a watch ends with what it is of.
		pause := readAgain
		if err := watcher.Add(f.path); err != nil {
			pause = lookForPath
			if !errors.Is(err, fs.ErrNotExist) {
				f.source.problem(f.path, err.Error())
			}
		}

		f.read()

		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of static pods ended")
			}

		case err := <-watcher.Errors:
			f.source.log.Warn("events of static pods were lost", "path", f.path, "err", err)
		case <-time.After(pause):
		}
	}
}

// read makes the static pods those of the files. A file that cannot be read or is half written keeps the pod
// it had.
func (f *Files) read() {
	files, err := manifests(f.path)
	if err != nil {
		f.source.problem(f.path, err.Error())
		return
	}

	now := map[string]parsed{}
	var found []*v1.Pod
	for _, file := range files {
		next, err := f.parse(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			f.source.problem(file, err.Error())
			next = f.last[file]
		}

		if next.pod != nil {
			now[file] = next
			found = append(found, next.pod.DeepCopy())
		}
	}

	f.last = now
	f.source.setStatic(manifest.SourceFile, found)
}

// parse reads a file. One that says what it said before is not decoded again.
func (f *Files) parse(file string) (parsed, error) {
	data, err := boundedfile.ReadLinked(file, maxManifest)
	if err != nil {
		return parsed{}, err
	}
	if last := f.last[file]; last.pod != nil && bytes.Equal(last.data, data) {
		return last, nil
	}

	pod, warnings, err := manifest.Pod(data, manifest.Origin{Node: f.source.node, File: file})
	for _, w := range warnings {
		f.source.problem(file, w)
	}

	return parsed{data, pod}, err
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
