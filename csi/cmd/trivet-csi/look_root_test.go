package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/listing"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/mount"
)

// doctor runs the doctor and returns what it prints, and its exit code.
func (p *process) doctor() (string, int) {
	p.t.Helper()
	out, err := output(p.verb("doctor", "--reserve=1Mi", "--pool-size=2Gi"))
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		p.t.Fatal(err)
	}
	if failed {
		return out, exit.ExitCode()
	}
	return out, 0
}

// tree describes all files of the data directory, without what is in the pool.
func (p *process) tree() string {
	p.t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(p.dir+"/data", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if path == p.dir+"/data/pool" {
			return fs.SkipDir
		}

		// The kernel still writes to images.
		changed := info.ModTime()
		if filepath.Ext(path) == ".img" {
			changed = time.Time{}
		}
		fmt.Fprintln(&text, path, info.Mode(), info.Size(), changed)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return text.String()
}

func TestDoctorFindsNothingWrong(t *testing.T) {
	p := newProcess(t)
	var leave []*life
	kinds := p.kinds()
	kinds["encrypted"] = p.encrypted()
	for _, l := range kinds {
		p.do(l.create, l.stage, l.publish, l.write)
		if l.backend == "btrfs" {
			p.do(l.snapshot)
		}
		leave = append(leave, l)
	}

	if out, code := p.doctor(); code != 0 || !strings.Contains(out, "driver: answers") ||
		!strings.Contains(out, "records: 6 volumes and 4 snapshots") || strings.Contains(out, "wrong") {
		t.Errorf("beside a driver: %d\n%s", code, out)
	}

	p.end(syscall.SIGKILL)
	before := p.tree()
	if out, code := p.doctor(); code != 0 || !strings.Contains(out, "records: 6 volumes and 4 snapshots") {
		t.Errorf("without a driver: %d\n%s", code, out)
	}
	if now := p.tree(); now != before {
		t.Errorf("now\n%s\nbefore\n%s", now, before)
	}

	p.start()
	p.ready()
	for _, l := range leave {
		p.do(l.unpublish, l.unstage, l.delete)
		if l.snapshotID != "" {
			p.do(l.deleteSnapshot)
		}
	}
	p.end(syscall.SIGTERM)
	if out, code := p.doctor(); code != 0 || !strings.Contains(out, "it is not mounted") {
		t.Errorf("after the driver: %d\n%s", code, out)
	}
	p.nothingLeft()
}

// spoil makes a mess of a data directory whose driver was killed, and returns the first words of what the
// doctor has to say about it.
func (p *process) spoil(kinds map[string]*life) []string {
	p.t.Helper()
	data := p.dir + "/data"
	must := func(errs ...error) {
		p.t.Helper()
		if err := errors.Join(errs...); err != nil {
			p.t.Fatal(err)
		}
	}

	instance, err := instanceOf(p.where())
	must(err)
	stray := data + "/images/stray.img"
	must(os.WriteFile(stray, make([]byte, 1<<20), 0o600))
	dev, err := loop.Attach(stray, loop.Options{Tag: loop.TagOf(instance, "stray")})
	must(err)
	p.t.Cleanup(func() { _ = loop.Detach(dev, loop.TagOf(instance, "stray")); dev.Close() })

	hidden := kinds["v-btrfs-ext4"]
	gone, torn, lost := kinds["v-image"], kinds["v-btrfs-btrfs"], kinds["v-image-ext4"]
	must(
		os.Remove(data+"/images/"+gone.id+".img"),
		os.WriteFile(data+"/volumes/"+torn.id+".json", []byte("{"), 0o600),
		os.Remove(data+"/volumes/"+lost.id+".json"),
		os.WriteFile(data+"/notes", nil, 0o600),
		unix.Unmount(hidden.target(), 0),
	)
	return []string{
		"wrong  record " + torn.id + ": ",
		"wrong  volume " + gone.id + ": its file is not in ",
		"wrong  subvolume " + data + "/pool/volumes/" + torn.id + ": it has no record",
		"wrong  file " + data + "/images/" + lost.id + ".img: it has no record",
		"wrong  file " + stray + ": it has no record",
		"wrong  volume " + hidden.id + ": it is not mounted on " + hidden.target(),
		"wrong  device " + dev.Name() + ": it is attached to stray, which has no record",
		"wrong  mount " + lost.target() + ": it shows volume " + lost.id + ", which has no record",
		"note   file " + data + "/notes: ",
	}
}

func TestDoctorNamesWhatIsWrong(t *testing.T) {
	p := newProcess(t)
	kinds := p.kinds()
	for _, l := range kinds {
		p.do(l.create)
		if l.block {
			continue
		}
		p.do(l.stage, l.publish)
	}

	p.end(syscall.SIGKILL)
	wanted := p.spoil(kinds)
	before := p.tree()
	out, code := p.doctor()
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range wanted {
		if !strings.Contains("\n"+out, "\n"+want) {
			t.Errorf("nothing begins with %q", want)
		}
	}
	if now := p.tree(); now != before || t.Failed() {
		t.Errorf("it says\n%s\nnow\n%s\nbefore\n%s", out, now, before)
	}

	if err := mount.UnmountBelow(p.dir); err != nil {
		t.Error(err)
	}
}

func TestListsShowWhatIsThere(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create, l.stage, l.publish, l.fill, l.snapshot)

	var volumes []listing.Volume
	p.decode(&volumes, "volumes")
	if len(volumes) != 1 || volumes[0].ID != l.id || volumes[0].Size != 16<<20 || volumes[0].Used == nil ||
		*volumes[0].Used < 1<<20 || volumes[0].PublishedOn[0] != l.target() || volumes[0].State != "ready" {
		t.Errorf("volumes %+v", volumes)
	}

	var snapshots []listing.Snapshot
	p.decode(&snapshots, "snapshots")
	if len(snapshots) != 1 || snapshots[0].ID != l.snapshotID || snapshots[0].Source != l.id ||
		snapshots[0].Promised < 1<<20 {
		t.Errorf("snapshots %+v", snapshots)
	}

	var pool listing.Pool
	p.decode(&pool, "pool")
	if pool.Pool.State != "mounted" || pool.Pool.Volumes != 1 || pool.Pool.Snapshots != 1 ||
		pool.Pool.Promised < 17<<20 || pool.Promisable["btrfs"] == 0 {
		t.Errorf("pool %+v", pool)
	}

	for verb, want := range map[string]string{"volumes": l.id, "snapshots": l.snapshotID, "pool": "btrfs "} {
		if out, err := output(p.verb(verb)); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s, %v", verb, out, err)
		}
	}

	p.do(l.unpublish, l.unstage)
	p.deleteByHand(l.id)
	p.deleteByHand(l.snapshotID)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// deleteByHand deletes a volume or snapshot as a person does.
func (p *process) deleteByHand(id string) {
	p.t.Helper()
	if _, err := output(p.verb("delete", id)); err == nil || !strings.Contains(err.Error(), "--unchecked") {
		p.t.Errorf("without an API: %v", err)
	}
	if _, err := output(p.verb("delete", "--unchecked", id)); err != nil {
		p.t.Error(err)
	}
}

// decode runs a verb that prints JSON.
func (p *process) decode(into any, verb string) {
	p.t.Helper()
	out, err := output(p.verb(verb, "-o", "json"))
	if err == nil {
		err = json.Unmarshal([]byte(out), into)
	}
	if err != nil {
		p.t.Fatalf("%s: %v: %s", verb, err, out)
	}
}

// Objects are printed by which a person uses a volume and a snapshot again, and what nobody wants is deleted,
// group snapshots too.
func TestObjectsOfWhatWasForgottenArePrinted(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create, l.stage, l.publish, l.snapshot)
	made, err := csi.NewGroupControllerClient(p.conn).CreateVolumeGroupSnapshot(t.Context(),
		&csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{l.id}})
	if err != nil {
		t.Fatal(err)
	}

	for id, want := range map[string]string{
		l.id:         "volumeHandle: " + l.id + "\n",
		l.snapshotID: "source: {snapshotHandle: " + l.snapshotID + "}\n",
	} {
		out, err := output(p.verb("object", "--unchecked", id))
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("object %s: %s, %v", id, out, err)
		}
		out, err = output(p.verb("object", id))
		if err == nil || out != "" || !strings.Contains(err.Error(), "--unchecked") {
			t.Errorf("object %s without an API: %s, %v", id, out, err)
		}
	}
	for _, id := range []string{"pvc-none", "../x", made.GetGroupSnapshot().GetGroupSnapshotId()} {
		if out, err := output(p.verb("object", id)); err == nil || !strings.Contains(err.Error(), id) {
			t.Errorf("object %s: %s, %v", id, out, err)
		}
	}

	e := p.encrypted()
	p.do(e.create)
	out, err := output(p.verb("object", "--unchecked", e.id))
	if err == nil || out != "" || !strings.Contains(err.Error(), "--secret") {
		t.Errorf("object of an encrypted volume without its Secret: %s, %v", out, err)
	}
	out, err = output(p.verb("object", "--unchecked", "--secret=keys/v", e.id))
	if err != nil || !strings.Contains(out, `nodeStageSecretRef: {namespace: "keys", name: "v"}`) {
		t.Errorf("object of an encrypted volume: %s, %v", out, err)
	}
	p.do(e.delete)

	member := made.GetGroupSnapshot().GetSnapshots()[0].GetSnapshotId()
	if out, err := output(p.verb("delete", "--unchecked", member)); err == nil {
		t.Errorf("a snapshot of a group was deleted: %s", out)
	}
	p.do(l.unpublish, l.unstage)
	for _, id := range []string{made.GetGroupSnapshot().GetGroupSnapshotId(), l.id, l.snapshotID} {
		p.deleteByHand(id)
	}
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// Nobody is told to use a volume again that was made as part of a pod, and that the driver deletes.
func TestNoObjectHasAVolumeThatIsPartOfAPod(t *testing.T) {
	p := newProcess(t)
	node := csi.NewNodeClient(p.conn)
	target := filepath.Join(p.dir, "kubelet/pods/p/mount")
	_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId:         "csi-1",
		TargetPath:       target,
		VolumeCapability: p.life("csi-1").capability(),
		VolumeContext:    map[string]string{"csi.storage.k8s.io/ephemeral": "true", "size": "16Mi"},
	})
	if err != nil {
		t.Fatal(err)
	}

	id := volume.ID("inline/csi-1")
	out, err := output(p.verb("object", "--unchecked", id))
	if err == nil || out != "" || !strings.Contains(err.Error(), id) {
		t.Errorf("object %s: %s, %v", id, out, err)
	}

	request := &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: target}
	if _, err := node.NodeUnpublishVolume(t.Context(), request); err != nil {
		t.Error(err)
	}
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// The limits of a volume are lifted behind the back of a driver that was killed.
func TestDoctorComparesLimitsWithThoseInForce(t *testing.T) {
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	if host.V2 {
		t.Skip("with cgroup v2 limits are those of the group of all pods, and there is none here")
	}

	p := newProcess(t)
	l := p.life("v")
	l.block = true
	p.do(l.create, func(ctx context.Context) error {
		_, err := l.controller.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
			VolumeId:          l.id,
			MutableParameters: map[string]string{"writeBytesPerSecond": "4Mi"},
		})
		return err
	}, l.stage)
	const inForce = "ok     limits: those of input and output of 1 volumes in use are in force"
	if out, code := p.doctor(); code != 0 || !strings.Contains(out, inForce) {
		t.Errorf("%d\n%s", code, out)
	}

	p.end(syscall.SIGKILL)
	staged, _, err := publish.Read(p.dir + "/run/staged")
	if err == nil {
		err = host.LimitIO("/", staged[l.id].Limited, cgroup.IOLimits{})
	}
	if err != nil {
		t.Fatal(err)
	}
	want := "wrong  volume " + l.id +
		": its limits of input and output are not in force for /; start the driver\n"
	if out, code := p.doctor(); code != 1 || !strings.Contains(out, want) {
		t.Errorf("%d, want %s in\n%s", code, want, out)
	}

	p.start()
	p.ready()
	p.do(l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
