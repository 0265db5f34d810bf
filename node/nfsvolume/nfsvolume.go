// Package nfsvolume mounts in-tree NFS volumes as kubelet does: by mount(8) and mount.nfs, one mount per pod
// and volume at ROOT/pods/UID/volumes/kubernetes.io~nfs/NAME. Whether something is mounted it reads in the
// mount table and never by a look at the directory, which would wait for a server that is gone.
package nfsvolume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/mount"
)

// Plugin is the name of the volumes' directory in that of a pod.
const Plugin = "kubernetes.io~nfs"

// Export is what a volume mounts.
type Export struct {
	Server   string
	Path     string
	ReadOnly bool

	// Options are those of mount(8), option -o.
	Options []string
}

// OfVolume returns the export of a volume in a pod.
func OfVolume(src *v1.NFSVolumeSource) Export {
	return Export{Server: src.Server, Path: src.Path, ReadOnly: src.ReadOnly}
}

// OfPersistent returns the export of a persistent volume. The options are those of the annotation that
// Kubernetes used before, or else those of the spec.
func OfPersistent(pv *v1.PersistentVolume, readOnly bool) Export {
	src := pv.Spec.NFS
	e := Export{
		Server:   src.Server,
		Path:     src.Path,
		ReadOnly: readOnly,
		Options:  pv.Spec.MountOptions,
	}
	if text := pv.Annotations[v1.MountOptionAnnotation]; text != "" {
		e.Options = strings.Split(text, ",")
	}
	return e
}

// Mounter mounts and unmounts. The zero value is ready.
type Mounter struct {
	// Program is mount(8); empty finds it in PATH.
	Program string

	// Helpers are the directories where mount(8) finds mount.nfs; nil stands for the usual ones.
	Helpers []string

	unmounts inFlight
}

// mountTime bounds one attempt: mount.nfs itself tries for two minutes.
const mountTime = 150 * time.Second

// Mount mounts the export on dir, which it makes, unless something is mounted there. An attempt takes
// mountTime at most.
func (m *Mounter) Mount(ctx context.Context, e Export, dir string) error {
	if there, err := mounted(dir); there || err != nil {
		return err
	}

	source, err := e.source()
	if err != nil {
		return err
	}
	if err := m.checkHelper(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}

	if err := m.run(ctx, source, e.options(), dir); err != nil {
		// A mount.nfs that was killed may have been finished by the kernel.
		return errors.Join(err, m.Unmount(ctx, dir))
	}

	return nil
}

// source is what mount(8) mounts: SERVER:PATH.
func (e Export) source() (string, error) {
	server := e.Server
	if ip, err := netip.ParseAddr(server); err == nil && ip.Is6() {
		server = "[" + server + "]"
	}

	source := server + ":" + e.Path
	if e.Server == "" || !filepath.IsAbs(e.Path) || strings.ContainsAny(source, "\x00\n") {
		return "", fmt.Errorf("NFS export %q is not SERVER:/PATH", source)
	}

	return source, nil
}

// options returns the options for mount(8), sorted, each once.
func (e Export) options() []string {
	out := slices.Clone(e.Options)
	if e.ReadOnly {
		out = append(out, "ro")
	}

	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(o string) bool { return o == "" })
}

// checkHelper makes sure that mount.nfs is installed. Without it mount(8) fails too, but with a message about
// bad options.
func (m *Mounter) checkHelper() error {
	dirs := m.Helpers
	if dirs == nil {
		dirs = []string{"/sbin", "/usr/sbin", "/usr/local/sbin", "/sbin/fs", "/sbin/fs.d"}
	}

	for _, dir := range dirs {
		if info, err := os.Stat(filepath.Join(dir, "mount.nfs")); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}

	return errors.New("the node has no mount.nfs: install the NFS client (nfs-common, nfs-utils)")
}

// run calls mount(8).
func (m *Mounter) run(ctx context.Context, source string, options []string, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, mountTime)
	defer cancel()

	args := []string{"-t", "nfs"}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}

	program := cmp.Or(m.Program, "mount")
	command := exec.CommandContext(ctx, program, append(args, "--", source, dir)...)

	// rpc.statd, which mount.nfs may start, lives on and keeps the output open.
	command.WaitDelay = time.Second
	output, err := command.CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}

	return fmt.Errorf("mount NFS export %s on %s with options %q: %w: %s",
		source, dir, options, err, brief(output))
}

// brief is the beginning of what a program has written, on one line.
func brief(output []byte) string {
	const most = 1 << 10
	text := strings.ToValidUTF8(string(output[:min(len(output), most)]), "?")
	return strings.Join(strings.Fields(text), " ")
}

// mounted reports whether something is mounted on dir, by the mount table.
func mounted(dir string) (bool, error) {
	points, err := mount.Below(dir)
	if err != nil {
		return false, fmt.Errorf("mount table: %w", err)
	}
	return slices.Contains(points, filepath.Clean(dir)), nil
}
