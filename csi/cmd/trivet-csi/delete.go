package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/doctor"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

const aboutDelete = `
trivet-csi delete VOLUME_OR_SNAPSHOT discards what no object of the Kubernetes API stands for, by its ID: a
volume whose PersistentVolume is gone, data without a record. What an object stands for is refused: delete
that. trivet-csi has to run.`

var errUnknown = errors.New("delete: nobody says whether an object stands for it:" +
	" give --kubeconfig, or --unchecked")

// deleteVolume deletes a volume or a snapshot by its ID.
func deleteVolume(ctx context.Context, env *program.Env) error {
	var l looking
	fs := env.Flags(aboutDelete)
	l.defineWhere(fs)
	unchecked := fs.Bool("unchecked", false, "do not ask the Kubernetes API whether an object stands for it")
	if err := l.parseVerb(env, fs); err != nil {
		return err
	}
	id := fs.Arg(0)
	if fs.NArg() != 1 || volume.CheckID(id) != nil {
		err := fmt.Errorf("delete: want the ID of one volume or snapshot, not %q", id)
		return &program.UsageError{Err: err}
	}

	if !*unchecked {
		api, err := l.api(ctx)
		if err != nil {
			return err
		}
		if api == nil {
			return &program.UsageError{Err: errUnknown}
		}
		if object := doctor.ObjectOf(api, id); object != "" {
			return fmt.Errorf("delete %s: %s stands for it: delete that", id, object)
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
	if volume.IsSnapshotID(id) {
		_, err = controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
	} else {
		_, err = controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}
