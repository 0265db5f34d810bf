package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/archive"
	"github.com/trivet-node/trivet/csi/doctor"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/loan"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/socket"
)

const aboutExport = `
trivet-csi export VOLUME_OR_SNAPSHOT > FILE writes what a volume or a snapshot of this node holds as a stream,
for trivet-csi import. It is named by its ID, which is its volume handle in Kubernetes. A volume in use is
exported as it is at the beginning. trivet-csi has to run.`

// exportVolume writes a volume to standard output.
func exportVolume(ctx context.Context, env *program.Env) error {
	var o options
	fs := env.Flags(aboutExport)
	o.defineWhere(fs)
	if err := o.parseVerb(env, fs); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return &program.UsageError{Err: errors.New("export: want the ID of one volume or snapshot")}
	}
	if isTerminal(env.Stdout) {
		return &program.UsageError{Err: errors.New("export: standard output is a terminal: say > FILE")}
	}

	id := fs.Arg(0)
	err := loan.Read(ctx, loan.Socket(o.stateDir), id,
		func(ctx context.Context, s volume.Spec, content *os.File) error {
			h := headerOf(s, id, o.nodeName)
			return orEnd(ctx, func() error { return archive.Write(ctx, env.Stdout, h, content) })
		})
	if errors.Is(err, loan.ErrNotReturned) {
		env.Log.Warn("the stream is whole, but something is left", "volume", id, "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", id, err)
	}

	return nil
}

func headerOf(s volume.Spec, id, node string) archive.Header {
	return archive.Header{
		ID:      rand.Text(),
		Volume:  id,
		Node:    node,
		Created: time.Now().UTC().Truncate(time.Second),
		Access:  string(s.Access),
		Size:    s.Size,
		FSType:  s.FSType,
		Backend: s.Backend,
		NoCOW:   s.NoCOW,
	}
}

// orEnd runs a function that may wait for somebody who says nothing until ctx ends. The program ends then.
func orEnd(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const aboutImport = `
trivet-csi import --name NAME < FILE makes a volume on this node with what trivet-csi export has written, and
prints the PersistentVolume that uses it: trivet-csi import --name NAME < FILE | kubectl apply -f -
The volume is there whole, or not at all; the same command again finds it. trivet-csi has to run.`

// importFlags say what is made of a stream.
type importFlags struct {
	name, class     string
	size            string
	backend, fsType string
	reserve         bool
}

// volumeName is a name that is good for a PersistentVolume, too.
var volumeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// importVolume makes a volume of standard input.
func importVolume(ctx context.Context, env *program.Env) error {
	var o options
	var f importFlags
	fs := env.Flags(aboutImport)
	o.defineWhere(fs)
	fs.StringVar(&f.name, "name", "", "name of the volume and its PersistentVolume (required)")
	fs.StringVar(&f.class, "storage-class", "", "storageClassName of the PersistentVolume")
	fs.StringVar(&f.size, "size", "", "size of the volume, such as 20Gi (default: as it was)")
	fs.StringVar(&f.backend, "backend", "", "btrfs, image or quota (default: the best that works)")
	fs.StringVar(&f.fsType, "fs-type", "", "file system: btrfs, xfs or ext4 (default: as it was)")
	fs.BoolVar(&f.reserve, "reserve", false, "take all bytes of the volume from the disk at once")
	if err := o.parseVerb(env, fs); err != nil {
		return err
	}
	if fs.NArg() > 0 || !volumeName.MatchString(f.name) {
		err := fmt.Errorf("import: want --name with letters, digits and '-', 63 at most, not %q", f.name)
		return &program.UsageError{Err: err}
	}

	// What does not fit into a volume must fail here, as it does for a pod.
	if err := projectquota.Obey(); err != nil {
		return err
	}

	s, there, err := f.receive(ctx, env.Stdin, loan.Socket(o.stateDir))
	if err != nil {
		return fmt.Errorf("import %s: %w", f.name, err)
	}
	if there {
		env.Log.Info("the volume is there already", "volume", s.ID)
	}

	_, err = io.WriteString(env.Stdout, manifest(s, f.name, f.class, "", o.nodeName))
	return err
}

// receive makes the volume.
func (f importFlags) receive(
	ctx context.Context, from io.Reader, socket string,
) (s volume.Spec, there bool, err error) {
	var stream *archive.Reader
	err = orEnd(ctx, func() (err error) {
		stream, err = archive.NewReader(ctx, from)
		return err
	})
	if err != nil {
		return volume.Spec{}, false, err
	}

	request, err := f.request(stream.Header)
	if err != nil {
		return volume.Spec{}, false, err
	}
	return loan.Make(ctx, socket, request, func(ctx context.Context, content *os.File) error {
		return orEnd(ctx, func() error { return stream.Extract(ctx, content) })
	})
}

// request is what the flags and, where they say nothing, the stream ask for.
func (f importFlags) request(h archive.Header) (volume.Request, error) {
	size, err := parseSize("--size", f.size)
	if err != nil {
		return volume.Request{}, &program.UsageError{Err: err}
	}
	if size > 0 && size < h.Size && h.Access == archive.Block {
		err := fmt.Errorf("--size %s is less than the %d bytes of the device", f.size, h.Size)
		return volume.Request{}, &program.UsageError{Err: err}
	}
	if size == 0 {
		size = h.Size
	}

	r := volume.Request{
		Name:     f.name,
		Required: size,
		Backend:  f.backend,
		Access:   volume.Access(h.Access),
		FSType:   f.fsType,
		Imported: h.ID,
	}
	// Directories with quotas have the file system of their disk.
	if r.FSType == "" && f.backend != quotadir.Name {
		r.FSType = h.FSType
	}
	if r.FSType == "btrfs" && h.FSType == "btrfs" {
		r.NoCOW = &h.NoCOW
	}
	if f.reserve {
		r.Reserve = &f.reserve
	}

	return r, nil
}

// manifest is the PersistentVolume of a volume. Its content is retained: it was not made for a claim.
func manifest(s volume.Spec, name, class, secret, node string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata:
  name: %q
spec:
  capacity: {storage: "%d"}
  accessModes: [ReadWriteOnce]
  volumeMode: %s
  persistentVolumeReclaimPolicy: Retain
  storageClassName: %q
  csi:
    driver: %s
    volumeHandle: %s
    fsType: %q
%s  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: %s, operator: In, values: [%q]}
`, name, s.Size, modeOf(s), class, driver.Name, s.ID, s.FSType, secret, driver.TopologyKey, node)
}

const aboutObject = `
trivet-csi object VOLUME_OR_SNAPSHOT prints the object by which something on this node is used again that no
object of the Kubernetes API stands for, such as what was forgotten with its node: a PersistentVolume, or a
VolumeSnapshotContent with its VolumeSnapshot. trivet-csi object ID | kubectl apply -f -
What an object stands for is refused, and so is a volume that was part of a pod.`

// printObject prints the object of a volume or a snapshot.
func printObject(ctx context.Context, env *program.Env) error {
	var l looking
	fs := env.Flags(aboutObject)
	l.defineWhere(fs)
	class := fs.String("storage-class", "", "storageClassName of the PersistentVolume")
	namespace := fs.String("namespace", "default", "namespace of the VolumeSnapshot")
	secret := fs.String("secret", "", "NAMESPACE/NAME of the Secret of an encrypted volume")
	unchecked := fs.Bool("unchecked", false, aboutUnchecked)
	if err := l.parseVerb(env, fs); err != nil {
		return err
	}
	id := fs.Arg(0)
	if fs.NArg() != 1 || volume.CheckID(id) != nil {
		err := fmt.Errorf("object: want the ID of one volume or snapshot, not %q", id)
		return &program.UsageError{Err: err}
	}

	s, err := l.served(ctx)
	if err != nil {
		return err
	}
	r, known := s.Records[id]
	if !known || r.Err != nil || !r.IsReady() {
		return fmt.Errorf("object: there is no volume or snapshot %s on this node", id)
	}
	if driver.IsInline(r.Name) {
		return fmt.Errorf("object: volume %s is part of a pod, and goes with it: no object has it", id)
	}

	if !*unchecked {
		if err := l.checkUnused(ctx, id); err != nil {
			return fmt.Errorf("object: %w", err)
		}
	}

	line, err := stageSecret(r.Spec, *secret)
	if err != nil {
		return err
	}
	text := manifest(r.Spec, id, *class, line, l.nodeName)
	if r.Snapshot {
		text = snapshotManifest(r.Spec, *namespace)
	}
	_, err = io.WriteString(env.Stdout, text)
	return err
}

// snapshotManifest is the content of a snapshot, and the VolumeSnapshot that has it. It is retained when they
// are deleted.
func snapshotManifest(s volume.Spec, namespace string) string {
	return fmt.Sprintf(`apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata:
  name: %[1]s
spec:
  driver: %[2]s
  deletionPolicy: Retain
  source: {snapshotHandle: %[1]s}
  sourceVolumeMode: %[3]s
  volumeSnapshotRef: {namespace: %[4]q, name: %[1]s}
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata:
  namespace: %[4]q
  name: %[1]s
spec:
  source: {volumeSnapshotContentName: %[1]s}
`, s.ID, driver.Name, modeOf(s), namespace)
}

// modeOf is the volumeMode of a volume in the Kubernetes API.
func modeOf(s volume.Spec) string {
	if s.Access == volume.Block {
		return "Block"
	}
	return "Filesystem"
}

const aboutDelete = `
trivet-csi delete ID discards what no object of the Kubernetes API stands for: a volume whose PersistentVolume
is gone, a snapshot or a group snapshot without its content, data without a record. What an object stands for
is refused: delete that. trivet-csi has to run.`

const aboutUnchecked = "do not ask the Kubernetes API whether an object stands for it"

var errUnknown = errors.New("nobody says whether an object stands for it: give --kubeconfig, or --unchecked")

// checkUnused asks the Kubernetes API whether an object stands for a volume or a snapshot, which is an error.
func (l *looking) checkUnused(ctx context.Context, id string) error {
	api, err := l.known(ctx)
	if err != nil {
		return err
	}
	if api == nil {
		return &program.UsageError{Err: fmt.Errorf("%s: %w", id, errUnknown)}
	}
	if object := doctor.ObjectOf(api, id); object != "" {
		return fmt.Errorf("%s stands for %s already", object, id)
	}
	return nil
}

// deleteVolume deletes a volume or a snapshot by its ID.
func deleteVolume(ctx context.Context, env *program.Env) error {
	var l looking
	fs := env.Flags(aboutDelete)
	l.defineWhere(fs)
	unchecked := fs.Bool("unchecked", false, aboutUnchecked)
	if err := l.parseVerb(env, fs); err != nil {
		return err
	}
	id := fs.Arg(0)
	if fs.NArg() != 1 || volume.CheckID(id) != nil && !group.IsID(id) {
		err := fmt.Errorf("delete: want the ID of one volume, snapshot or group snapshot, not %q", id)
		return &program.UsageError{Err: err}
	}

	if !*unchecked {
		if err := l.checkUnused(ctx, id); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}

	return l.callDelete(ctx, id)
}

func (l *looking) callDelete(ctx context.Context, id string) error {
	conn, err := socket.Dial(l.endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	controller := csi.NewControllerClient(conn)
	switch {
	case group.IsID(id):
		request := &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id}
		_, err = csi.NewGroupControllerClient(conn).DeleteVolumeGroupSnapshot(ctx, request)
	case volume.IsSnapshotID(id):
		_, err = controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
	default:
		_, err = controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}
