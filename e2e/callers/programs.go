package callers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trivet-node/trivet/internal/debian"
	"github.com/trivet-node/trivet/internal/ociimage"
	"github.com/trivet-node/trivet/internal/tarfile"
)

// The images of containers and, where a caller wants one, of what keeps a pod's namespaces.
const (
	image = "docker.io/library/busybox:latest"
	pause = "registry.k8s.io/pause:3.10.2"
)

// prepare makes what the callers have in common: images, scripts and podman, which is taken from Debian's
// packages and not installed, because its configuration of a network would be one of the host's from then
// on.
func (r Run) prepare(ctx context.Context) error {
	if err := os.MkdirAll(r.Work, 0o755); err != nil {
		return err
	}

	for file, reference := range map[string]string{"busybox.tar": image, "pause.tar": pause} {
		if err := r.writeArchive(filepath.Join(r.Work, file), reference); err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
	}

	if err := errors.Join(os.RemoveAll(r.scripts()), os.CopyFS(r.Work, scripts)); err != nil {
		return err
	}

	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil
	}
	if err := r.unpackPodman(ctx); err != nil {
		return fmt.Errorf("podman: %w", err)
	}

	return nil
}

func (r Run) scripts() string { return filepath.Join(r.Work, "scripts") }
func (r Run) podman() string  { return filepath.Join(r.Work, "podman") }

// writeArchive writes an image of the layout as docker save does, which all callers can load.
func (r Run) writeArchive(file, reference string) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}

	index, err := layout.ImageIndexFromPath(r.Images)
	if err != nil {
		return err
	}

	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}

	for _, described := range manifest.Manifests {
		if described.Annotations[ociimage.RefName] != reference {
			continue
		}

		image, err := onlyImage(index, described.Digest)
		if err != nil {
			return err
		}
		return tarball.WriteToFile(file, tag, image)
	}

	return fmt.Errorf("%s does not have it", r.Images)
}

// onlyImage is that of an index of one platform.
func onlyImage(top v1.ImageIndex, digest v1.Hash) (v1.Image, error) {
	index, err := top.ImageIndex(digest)
	if err != nil {
		return nil, err
	}

	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if n := len(manifest.Manifests); n != 1 {
		return nil, fmt.Errorf("%d platforms, want one", n)
	}

	return index.Image(manifest.Manifests[0].Digest)
}

// unpackPodman makes a directory of links to podman, conmon, the libraries that they need, and what they have
// below etc and usr/share/containers.
func (r Run) unpackPodman(ctx context.Context) error {
	mirror := debian.Host(runtime.GOARCH, filepath.Join(r.Work, "packages"))
	tree, err := mirror.Unpack(ctx,
		"podman", "conmon", "golang-github-containers-common", "golang-github-containers-image")
	if err != nil {
		return err
	}

	files, err := tree.Programs(map[string]string{"bin/podman": "podman", "bin/conmon": "conmon"})
	if err != nil {
		return err
	}

	for _, dir := range []string{"etc/cni", "etc/containers", "usr/share/containers"} {
		more, err := tree.Below(dir)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}

	if err := os.RemoveAll(r.podman()); err != nil {
		return err
	}
	for _, f := range files {
		if err := link(r.podman(), f); err != nil {
			return err
		}
	}

	return nil
}

// link makes a link to a file of a package.
func link(dir string, f tarfile.File) error {
	path := filepath.Join(dir, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}

	target := f.Source
	if target == "" {
		target = f.Link
	}

	return os.Symlink(target, path)
}
