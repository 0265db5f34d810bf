package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// backup is a copy of a block volume that is made as programs for backups make it: all blocks of the first
// snapshot that were written, and those that changed of each later one.
type backup struct {
	client csi.SnapshotMetadataClient
	copy   []byte
}

// take brings the copy to the state of a snapshot, whose device is at a path. Streams have one range in an
// answer; interrupt is called after the first, and may end them.
func (b *backup) take(ctx context.Context, base, snapshot, device string, interrupt func()) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()

	// What was interrupted goes on behind what was received.
	next := int64(0)
	return insist(ctx, func(ctx context.Context) error {
		receive, err := b.begin(ctx, base, snapshot, next)
		if err != nil {
			return err
		}

		for {
			size, ranges, err := receive()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}

			b.copy = append(b.copy, make([]byte, size-int64(len(b.copy)))...)
			for _, r := range ranges {
				next = r.GetByteOffset() + r.GetSizeBytes()
				if _, err := f.ReadAt(b.copy[r.GetByteOffset():next], r.GetByteOffset()); err != nil {
					return err
				}
				interrupt()
			}
		}
	})
}

// begin begins a stream, of what is allocated if there is no base.
func (b *backup) begin(
	ctx context.Context,
	base, snapshot string,
	from int64,
) (receive func() (size int64, ranges []*csi.BlockMetadata, err error), err error) {
	if base == "" {
		stream, err := b.client.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{
			SnapshotId:     snapshot,
			StartingOffset: from,
			MaxResults:     1,
		}, grpc.WaitForReady(true))
		return func() (int64, []*csi.BlockMetadata, error) {
			answer, err := stream.Recv()
			return answer.GetVolumeCapacityBytes(), answer.GetBlockMetadata(), err
		}, err
	}

	stream, err := b.client.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{
		BaseSnapshotId:   base,
		TargetSnapshotId: snapshot,
		StartingOffset:   from,
		MaxResults:       1,
	}, grpc.WaitForReady(true))
	return func() (int64, []*csi.BlockMetadata, error) {
		answer, err := stream.Recv()
		return answer.GetVolumeCapacityBytes(), answer.GetBlockMetadata(), err
	}, err
}

// A backup of blocks is whole, although the driver is killed while it says which.
func TestBackupOfChangedBlocksIsWhole(t *testing.T) {
	p := newProcess(t)
	b := &backup{client: csi.NewSnapshotMetadataClient(p.conn)}
	l := p.life("volume")
	l.block = true
	p.do(l.create, l.stage, l.publish, l.write)

	var used []*life
	base := ""
	for _, name := range []string{"first", "second", "third"} {
		l.content = name
		p.do(l.write, l.writeApart)
		snapshot := *l
		snapshot.name = name
		p.do(snapshot.snapshot)
		device := snapshot.restored()
		p.do(device.create, device.stage, device.publish)
		used = append(used, device, &snapshot)

		killed := false
		p.do(func(ctx context.Context) error {
			return b.take(ctx, base, snapshot.snapshotID, device.target(), func() {
				if !killed {
					killed = true
					p.end(syscall.SIGKILL)
					p.start()
				}
			})
		})
		want, err := os.ReadFile(device.target())
		if err != nil || !killed || !bytes.Equal(b.copy, want) {
			t.Errorf("%s: killed %v, %d bytes of %d; %v", name, killed, len(b.copy), len(want), err)
		}
		base = snapshot.snapshotID
	}

	p.ready()
	for i := 0; i < len(used); i += 2 {
		p.do(used[i].unpublish, used[i].unstage, used[i].delete, used[i+1].deleteSnapshot)
	}
	p.do(l.unpublish, l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// writeApart writes some blocks apart from each other behind what write writes.
func (l *life) writeApart(context.Context) error {
	f, err := os.OpenFile(l.file(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	for at := int64(contentSize + 64<<10); at < l.size; at += 1 << 20 {
		if _, err := f.WriteAt(l.bytes()[:4096], at); err != nil {
			return err
		}
	}
	return f.Sync()
}
