package snapshotmetadata_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/snapshotmetadata"
	"github.com/trivet-node/trivet/csi/volume"
)

// blocks are those of a volume of size bytes, of which every second one of 4 bytes has changed.
type blocks struct {
	size  int64
	err   error         // after the first page
	wait  chan struct{} // is waited for before the second page; nil: nothing is
	ended chan error    // has the error of each call; nil: nobody wants it

	// mu guards called.
	mu     sync.Mutex
	called []string
}

func (b *blocks) Allocated(ctx context.Context, id string, from int64, each changedblocks.Each) error {
	return b.Changed(ctx, "", id, from, each)
}

func (b *blocks) Changed(
	ctx context.Context,
	base, target string,
	from int64,
	each changedblocks.Each,
) (err error) {
	b.mu.Lock()
	b.called = append(b.called, fmt.Sprintf("%s %s %d", base, target, from))
	b.mu.Unlock()
	if b.ended != nil {
		defer func() { b.ended <- err }()
	}
	if err := each(b.size, nil); err != nil {
		return err
	}
	if b.wait != nil {
		select {
		case <-b.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	var some []changedblocks.Range
	for at := from; at < b.size; at += 8 {
		some = append(some, changedblocks.Range{Offset: at, Size: 4})
	}
	return errors.Join(each(b.size, some), b.err)
}

func serve(t *testing.T, b *blocks) csi.SnapshotMetadataClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	csi.RegisterSnapshotMetadataServer(server, snapshotmetadata.New(b))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:driver",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})
	return csi.NewSnapshotMetadataClient(conn)
}

// answer is what both kinds of answers have.
type answer interface {
	GetBlockMetadataType() csi.BlockMetadataType
	GetVolumeCapacityBytes() int64
	GetBlockMetadata() []*csi.BlockMetadata
}

// collect reads a stream to its end.
func collect[A answer](stream interface{ Recv() (A, error) }, err error) (answers []answer, _ error) {
	for err == nil {
		var a A
		if a, err = stream.Recv(); err == nil {
			answers = append(answers, a)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return answers, err
}

func TestAnswersHaveNoMorePartsThanAskedFor(t *testing.T) {
	b := &blocks{size: 80_000}
	client := serve(t, b)
	for _, c := range []struct {
		max  int32
		most int
	}{{0, 1024}, {1, 1}, {7, 7}, {1 << 30, 1024}} {
		request := &csi.GetMetadataDeltaRequest{BaseSnapshotId: "a", TargetSnapshotId: "b", MaxResults: c.max}
		answers, err := collect(client.GetMetadataDelta(t.Context(), request))
		if err != nil {
			t.Fatal(err)
		}

		var parts []int64
		for _, a := range answers {
			if a.GetBlockMetadataType() != csi.BlockMetadataType_VARIABLE_LENGTH ||
				a.GetVolumeCapacityBytes() != b.size || len(a.GetBlockMetadata()) > c.most {
				t.Fatalf("at most %d: answer %v", c.max, a)
			}
			for _, part := range a.GetBlockMetadata() {
				parts = append(parts, part.GetByteOffset())
			}
		}
		if len(parts) != 10_000 || !slices.IsSorted(parts) || len(answers) != 1+(len(parts)+c.most-1)/c.most {
			t.Errorf("at most %d: %d parts in %d answers", c.max, len(parts), len(answers))
		}
	}
}

func TestRequestsArePassedOn(t *testing.T) {
	b := &blocks{size: 64}
	client := serve(t, b)
	ctx := t.Context()
	allocated := func(r *csi.GetMetadataAllocatedRequest) error {
		_, err := collect(client.GetMetadataAllocated(ctx, r))
		return err
	}
	delta := func(r *csi.GetMetadataDeltaRequest) error {
		_, err := collect(client.GetMetadataDelta(ctx, r))
		return err
	}

	for name, err := range map[string]error{
		"no snapshot": allocated(&csi.GetMetadataAllocatedRequest{}),
		"no base":     delta(&csi.GetMetadataDeltaRequest{TargetSnapshotId: "b"}),
		"no target":   delta(&csi.GetMetadataDeltaRequest{BaseSnapshotId: "a"}),
		"negative":    allocated(&csi.GetMetadataAllocatedRequest{SnapshotId: "a", MaxResults: -1}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}

	b.called = nil
	err := errors.Join(
		allocated(&csi.GetMetadataAllocatedRequest{SnapshotId: "a", StartingOffset: 8}),
		delta(&csi.GetMetadataDeltaRequest{BaseSnapshotId: "a", TargetSnapshotId: "b", StartingOffset: 16}),
	)
	if want := []string{" a 8", "a b 16"}; err != nil || !slices.Equal(b.called, want) {
		t.Errorf("called %q, want %q; %v", b.called, want, err)
	}
}

// A backup that takes the end of a stream for the end of the changes must not be made to.
func TestAnErrorIsNotTheEnd(t *testing.T) {
	b := &blocks{size: 64, err: volume.ErrUnavailable}
	request := &csi.GetMetadataAllocatedRequest{SnapshotId: "a"}
	answers, err := collect(serve(t, b).GetMetadataAllocated(t.Context(), request))
	if err == nil || len(answers) != 2 {
		t.Errorf("%d answers, and %v", len(answers), err)
	}
}

// Each client has its stream, up to a number; one that goes away makes room.
func TestStreamsAreBounded(t *testing.T) {
	b := &blocks{size: 64, wait: make(chan struct{}), ended: make(chan error, 1000)}
	client := serve(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begin := func(id string) error {
		stream, err := client.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: id})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for i := range 128 {
		id := fmt.Sprint("snap-", i/8)
		if err := begin(id); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		if i == 7 {
			if err := begin(id); err == nil || !strings.Contains(err.Error(), id) {
				t.Errorf("there is no bound of one snapshot: %v", err)
			}
		}
	}
	if err := begin("another"); err == nil {
		t.Error("there is no bound")
	}

	cancel()
	for range 128 {
		if err := <-b.ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// A client that does not read what it asked for is waited for, but not forever.
func TestAClientThatReadsNothingIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocks{size: 8 << 20, ended: make(chan error, 1)}
		client := serve(t, b)
		began := time.Now()
		request := &csi.GetMetadataAllocatedRequest{SnapshotId: "snap-a"}
		stream, err := client.GetMetadataAllocated(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}

		err = <-b.ended
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "snap-a") {
			t.Errorf("the call ended with %v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("after %s", took)
		}

		// What was sent is there, and then the error.
		if _, err := collect(stream, nil); err == nil || !strings.Contains(err.Error(), "snap-a") {
			t.Errorf("the client sees %v", err)
		}
	})
}
