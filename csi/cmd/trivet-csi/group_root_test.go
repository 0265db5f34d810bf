package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// pair is two volumes in use, of which group snapshots are made.
type pair struct {
	groups  csi.GroupControllerClient
	members []*life
}

func (p *process) pair(ctx context.Context, name string) (*pair, error) {
	two := &pair{groups: csi.NewGroupControllerClient(p.conn)}
	for i := range 2 {
		l := p.life(fmt.Sprintf("%s-%d", name, i))
		two.members = append(two.members, l)
		err := doAll(ctx, []func(context.Context) error{l.create, l.stage, l.publish, l.write})
		if err != nil {
			return nil, err
		}
	}
	return two, nil
}

// group makes a group snapshot, restores one of its members, and deletes it.
func (two *pair) group(ctx context.Context, name string) error {
	var made *csi.VolumeGroupSnapshot
	create := func(ctx context.Context) error {
		resp, err := two.groups.CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{
			Name:            name,
			SourceVolumeIds: []string{two.members[0].id, two.members[1].id},
		}, grpc.WaitForReady(true))
		made = resp.GetGroupSnapshot()
		return err
	}
	if err := insist(ctx, create); err != nil {
		return err
	}
	if len(made.GetSnapshots()) != 2 || !made.GetReadyToUse() {
		return fmt.Errorf("group %s is %v", name, made)
	}

	restore := func(ctx context.Context) error {
		for _, s := range made.GetSnapshots() {
			source := *two.members[0]
			if s.GetSourceVolumeId() == two.members[1].id {
				source = *two.members[1]
			}
			source.snapshotID = s.GetSnapshotId()
			r := source.restored()
			err := doAll(ctx, []func(context.Context) error{
				r.create, r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	remove := func(ctx context.Context) error {
		_, err := two.groups.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{
			GroupSnapshotId: made.GetGroupSnapshotId(),
		}, grpc.WaitForReady(true))
		return err
	}
	return doAll(ctx, []func(context.Context) error{restore, remove})
}

func (two *pair) end(ctx context.Context) error {
	for _, l := range two.members {
		if err := doAll(ctx, []func(context.Context) error{l.unpublish, l.unstage, l.delete}); err != nil {
			return err
		}
	}
	return nil
}

// The driver is killed while group snapshots are made, used and deleted. None is ever there in part, and in
// the end nothing is left.
func TestKilledWhileGroupsAreMade(t *testing.T) {
	p := newProcess(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	done := make(chan struct{})
	go func() {
		defer close(done)
		two, err := p.pair(ctx, "pair")
		for i := 0; i < 4 && err == nil; i++ {
			err = two.group(ctx, fmt.Sprint("group-", i))
		}
		if err == nil {
			err = two.end(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	}()

	// It is killed while it serves, so that a slow machine gets on, too.
	for range 20 {
		p.ready()
		select {
		case <-done:
		case <-time.After(time.Duration(rand.IntN(300)) * time.Millisecond):
			p.end(syscall.SIGKILL)
			p.start()
		}
	}
	<-done
	p.ready()

	snapshots, err := csi.NewControllerClient(p.conn).ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
	if err != nil || len(snapshots.GetEntries()) > 0 {
		t.Errorf("snapshots left: %v, %v", snapshots, err)
	}
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
