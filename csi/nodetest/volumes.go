package nodetest

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

// Requests are for one volume of each kind, of so many bytes.
func Requests(size int64) []volume.Request {
	return []volume.Request{
		{Name: "b", Required: size, Backend: "btrfs", Access: volume.Filesystem},
		{Name: "cow", Required: size, Backend: "btrfs", Access: volume.Filesystem, NoCOW: new(false)},
		{Name: "e", Required: size, Backend: "image", FSType: "ext4", Access: volume.Filesystem},
		{Name: "raw", Required: size, Backend: "image", Access: volume.Block},
	}
}

// StagePath is where Use stages a volume.
func (n *Node) StagePath(id string) string {
	return filepath.Join(n.Kubelet, "stage", id, "globalmount")
}

// Target is where Use publishes a volume for a pod.
func (n *Node) Target(id, pod string) string {
	return filepath.Join(n.Kubelet, "pods", pod, "volumes", id, "mount")
}

// MustCreate creates a volume, with a file system unless the request says otherwise.
func (n *Node) MustCreate(r volume.Request) volume.Volume {
	n.T.Helper()
	if r.Access == "" {
		r.Access = volume.Filesystem
	}
	v, err := n.Create(n.T.Context(), r)
	n.must(err)
	return v
}

// Use stages and publishes a volume for a pod and returns the target.
func (n *Node) Use(v volume.Volume, pod string) string {
	n.T.Helper()
	u, path := publish.Use{Access: v.Access}, n.Target(v.ID, pod)
	n.must(n.Stage(n.T.Context(), v.ID, n.StagePath(v.ID), u))
	n.must(n.Publish(n.T.Context(), v.ID, path, u))
	return path
}

// Leave takes a volume from its pods; it stays.
func (n *Node) Leave(id string, pods ...string) {
	n.T.Helper()
	for _, pod := range pods {
		n.must(n.Unpublish(n.T.Context(), id, n.Target(id, pod)))
	}
	n.must(n.Unstage(n.T.Context(), id, n.StagePath(id)))
}

// Remove takes a volume from its pods and deletes it.
func (n *Node) Remove(id string, pods ...string) {
	n.T.Helper()
	n.Leave(id, pods...)
	n.must(n.Delete(n.T.Context(), id))
}

// sign is what Write writes to a volume.
func sign(v volume.Volume, path string) (file, text string) {
	if v.Access == volume.Filesystem {
		path = filepath.Join(path, "sign")
	}
	return path, "life of " + v.Name
}

// Write writes to the volume that is seen at a path, and syncs it.
func (n *Node) Write(v volume.Volume, path string) {
	n.T.Helper()
	file, text := sign(v, path)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	n.must(err)
	_, err = f.WriteString(text)
	n.must(err, f.Sync(), f.Close())
}

// Overwrite writes something else over what Write wrote.
func (n *Node) Overwrite(v volume.Volume, path, text string) {
	n.T.Helper()
	file, _ := sign(v, path)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	n.must(err)
	_, err = f.WriteString(text)
	n.must(err, f.Sync(), f.Close())
}

// CheckRead fails the test if the volume that is seen at a path does not have what Write wrote.
func (n *Node) CheckRead(v volume.Volume, path string) {
	n.T.Helper()
	file, want := sign(v, path)
	f, err := os.Open(file)
	n.must(err)
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := f.Read(got); err != nil || string(got) != want {
		n.T.Errorf("volume %s holds %q, %v", v.Name, got, err)
	}
}

// Fill writes to the file "filled" of a directory until it is full or most bytes are written, and returns how
// many were.
func (n *Node) Fill(dir string, most int64) (written int64) {
	n.T.Helper()
	f, err := os.Create(filepath.Join(dir, "filled"))
	n.must(err)
	defer f.Close()

	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 7)
	}

	for written < most {
		count, err := f.Write(chunk)
		written += int64(count)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return written
		}

		n.must(err)
	}

	return written
}
