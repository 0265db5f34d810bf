package check

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// unpack writes the files of an archive below a directory.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, archive, h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, archive io.Reader, h *tar.Header) error {
	name := filepath.Clean(h.Name)
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return root.Symlink(h.Linkname, name)
	}

	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY, os.FileMode(h.Mode).Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, archive)
	return errors.Join(err, f.Close())
}

// index reads the one image of an archive.
func index(t *testing.T, name string) v1.ImageIndex {
	t.Helper()
	archive, err := os.Open(files(t, "images/"+name+"_*.oci.tar")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()

	dir := t.TempDir()
	if err := unpack(archive, dir); err != nil {
		t.Fatal(err)
	}

	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}

	list, err := top.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("index.json has %d images, want one: %v", len(list.Manifests), err)
	}

	described := list.Manifests[0]
	want := "docker.io/library/" + name + ":" + version(t)
	if got := described.Annotations["io.containerd.image.name"]; got != want {
		t.Errorf("the image is called %q, want %q", got, want)
	}

	image, err := top.ImageIndex(described.Digest)
	if err != nil {
		t.Fatal(err)
	}

	return image
}

// ofPlatform is the image for an architecture.
func ofPlatform(t *testing.T, index v1.ImageIndex, arch string) v1.Image {
	t.Helper()
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}

	for _, m := range list.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == arch {
			image, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}

	t.Fatalf("no image is for linux/%s", arch)
	return nil
}

// rootOf unpacks the file system of an image.
func rootOf(t *testing.T, image v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	content := mutate.Extract(image)
	defer content.Close()

	if err := unpack(content, dir); err != nil {
		t.Fatal(err)
	}

	return dir
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func TestImagesAreWholeOnBothPlatforms(t *testing.T) {
	for _, name := range parts {
		t.Run(name, func(t *testing.T) {
			index := index(t, name)
			if err := validate.Index(index); err != nil {
				t.Fatal(err)
			}

			for arch, machine := range machines {
				image := ofPlatform(t, index, arch)
				config, err := image.ConfigFile()
				if err != nil || config.Architecture != arch || config.Created.IsZero() {
					t.Errorf("configuration for %s: %+v, %v", arch, config, err)
				}

				entrypoint := config.Config.Entrypoint[0]
				if !strings.HasPrefix(entrypoint, "/") {
					entrypoint = "usr/local/bin/" + entrypoint
				}

				program, err := elf.Open(filepath.Join(rootOf(t, image), entrypoint))
				if err != nil {
					t.Fatal(err)
				}
				if program.Machine != machine {
					t.Errorf("the program for %s is one for %s", arch, program.Machine)
				}
				program.Close()
			}
		})
	}
}

// TestToolsOfTheDriverRunWithTheLibrariesOfTheImage starts each by the dynamic loader of the image, which is
// told to look for libraries there only.
func TestToolsOfTheDriverRunWithTheLibrariesOfTheImage(t *testing.T) {
	loaders := map[string]string{
		"amd64": "lib64/ld-linux-x86-64.so.2",
		"arm64": "lib/ld-linux-aarch64.so.1",
	}
	for arch, loader := range loaders {
		t.Run(arch, func(t *testing.T) {
			command := runner(t, arch)
			root := rootOf(t, ofPlatform(t, index(t, "trivet-csi"), arch))
			for tool, says := range map[string]string{
				"e2fsck":     "e2fsck 1",
				"mkfs.btrfs": "mkfs.btrfs, part of btrfs-progs",
				"mkfs.ext4":  "mke2fs 1",
				"mkfs.xfs":   "mkfs.xfs version",
				"resize2fs":  "resize2fs 1",
			} {
				run := slices.Concat(command, []string{
					filepath.Join(root, loader),
					"--inhibit-cache",
					"--library-path", filepath.Join(root, "lib"),
					filepath.Join(root, "usr/sbin", tool),
					"-V",
				})

				// resize2fs shows its version as it refuses the option.
				out, _ := exec.Command(run[0], run[1:]...).CombinedOutput()
				if !strings.Contains(string(out), says) {
					t.Errorf("%s says %q, want %q", tool, out, says)
				}
			}
		})
	}
}

// TestVolumesAreFormattedByTheToolsOfTheImage makes each file system in a file.
func TestVolumesAreFormattedByTheToolsOfTheImage(t *testing.T) {
	arch := runtime.GOARCH
	root := rootOf(t, ofPlatform(t, index(t, "trivet-csi"), arch))
	for tool, options := range map[string][]string{
		"mkfs.btrfs": {"--quiet"},
		"mkfs.ext4":  {"-q", "-F"},
		"mkfs.xfs":   {"-q", "-f"},
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 512<<20); err != nil {
			t.Fatal(err)
		}

		loader, err := filepath.Glob(filepath.Join(root, "lib*", "ld-linux-*"))
		if err != nil || len(loader) != 1 {
			t.Fatalf("dynamic loaders %q: %v", loader, err)
		}

		program := filepath.Join(root, "usr/sbin", tool)
		command := slices.Concat(
			[]string{loader[0], "--argv0", tool, "--library-path", filepath.Join(root, "lib"), program},
			options,
			[]string{file},
		)
		output(t, []string{"MKE2FS_CONFIG=" + filepath.Join(root, "etc/mke2fs.conf")}, command...)
	}
}
