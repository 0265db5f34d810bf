// Package snapshotmetadata is the CSI 1.13 adapter of package changedblocks: the SnapshotMetadata service,
// for programs that make backups of the blocks of snapshots. In a cluster they speak to the sidecar
// external-snapshot-metadata, which knows who may, and which calls this one.
package snapshotmetadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/volume"
)

const (
	// maxStreams is how many calls are served at a time. They take turns.
	maxStreams = 128

	// maxOfOne is how many of them are for one snapshot: who reads nothing keeps others from that one alone.
	maxOfOne = 8

	// sendTimeout is how long a client may read nothing of an answer.
	sendTimeout = time.Minute

	// maxRanges is how many parts of a volume an answer has at most.
	maxRanges = 1024
)

// Blocks knows those of snapshots. It is a changedblocks.Tracker.
type Blocks interface {
	Allocated(ctx context.Context, id string, from int64, each changedblocks.Each) error
	Changed(ctx context.Context, base, target string, from int64, each changedblocks.Each) error
}

// Service is the SnapshotMetadata service.
type Service struct {
	csi.UnimplementedSnapshotMetadataServer
	blocks Blocks

	// mu guards streams: how many calls are being served, by their target snapshots, and all together.
	mu      sync.Mutex
	streams map[string]int
	all     int
}

// New returns a Service.
func New(blocks Blocks) *Service {
	return &Service{blocks: blocks, streams: map[string]int{}}
}

// GetMetadataAllocated streams the parts of a snapshot that were written.
func (s *Service) GetMetadataAllocated(
	req *csi.GetMetadataAllocatedRequest,
	stream csi.SnapshotMetadata_GetMetadataAllocatedServer,
) error {
	target := req.GetSnapshotId()
	if target == "" {
		return fmt.Errorf("%w: snapshot id is missing", volume.ErrInvalid)
	}

	send := func(size int64, blocks []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataAllocatedResponse{
			BlockMetadataType:   csi.BlockMetadataType_VARIABLE_LENGTH,
			VolumeCapacityBytes: size,
			BlockMetadata:       blocks,
		})
	}
	err := s.answer(target, req.GetMaxResults(), send, func(each changedblocks.Each) error {
		return s.blocks.Allocated(stream.Context(), target, req.GetStartingOffset(), each)
	})

	// The spec has FAILED_PRECONDITION for the other call only: there, it asks for a backup of everything.
	if errors.Is(err, changedblocks.ErrNoBlocks) {
		err = fmt.Errorf("%w: %w", volume.ErrInvalid, err)
	}
	return err
}

// GetMetadataDelta streams the parts of a snapshot that may differ from those of an earlier one of the same
// volume.
func (s *Service) GetMetadataDelta(
	req *csi.GetMetadataDeltaRequest,
	stream csi.SnapshotMetadata_GetMetadataDeltaServer,
) error {
	base, target := req.GetBaseSnapshotId(), req.GetTargetSnapshotId()
	if base == "" || target == "" {
		return fmt.Errorf("%w: base or target snapshot id is missing", volume.ErrInvalid)
	}

	send := func(size int64, blocks []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataDeltaResponse{
			BlockMetadataType:   csi.BlockMetadataType_VARIABLE_LENGTH,
			VolumeCapacityBytes: size,
			BlockMetadata:       blocks,
		})
	}
	return s.answer(target, req.GetMaxResults(), send, func(each changedblocks.Each) error {
		return s.blocks.Changed(stream.Context(), base, target, req.GetStartingOffset(), each)
	})
}

// send sends a part of the answer to a call.
type send func(size int64, blocks []*csi.BlockMetadata) error

// answer sends what find finds of a snapshot, in parts that are not larger than the caller wants.
func (s *Service) answer(
	target string, maxResults int32, send send, find func(changedblocks.Each) error,
) error {
	most, err := mostOf(maxResults)
	if err != nil {
		return err
	}
	leave, err := s.enter(target)
	if err != nil {
		return err
	}
	defer leave()

	return find(cut(most, func(size int64, blocks []*csi.BlockMetadata) error {
		return inTime(target, func() error { return send(size, blocks) })
	}))
}

// enter bounds how many calls are served at a time: clients that are slow to read what they asked for stay.
func (s *Service) enter(target string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all >= maxStreams:
		return nil, fmt.Errorf("%w: metadata of snapshots is being sent to %d clients already",
			volume.ErrUnavailable, s.all)
	case s.streams[target] >= maxOfOne:
		return nil, fmt.Errorf("%w: metadata of snapshot %s is being sent to %d clients already",
			volume.ErrUnavailable, target, s.streams[target])
	}
	s.all++
	s.streams[target]++
	return func() { s.leave(target) }, nil
}

func (s *Service) leave(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	s.streams[target]--
	if s.streams[target] == 0 {
		delete(s.streams, target)
	}
}

// inTime sends an answer about a snapshot. Who waits for a client that reads nothing is let go by the end of
// the call, which is what follows.
func inTime(target string, send func() error) error {
	done := make(chan error, 1)
	go func() { done <- send() }()
	timer := time.NewTimer(sendTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: the client that asked for the metadata of snapshot %s has read nothing for %s",
			context.DeadlineExceeded, target, sendTimeout)
	}
}

// mostOf returns how many parts an answer may have.
func mostOf(maxResults int32) (int, error) {
	switch {
	case maxResults < 0:
		return 0, fmt.Errorf("%w: max results is %d", volume.ErrInvalid, maxResults)
	case maxResults == 0:
		return maxRanges, nil
	}
	return min(int(maxResults), maxRanges), nil
}

// cut sends parts of a volume in answers of so many. Where there are none that is an empty answer: it says
// how large the volume is.
func cut(most int, send send) changedblocks.Each {
	return func(size int64, ranges []changedblocks.Range) error {
		if len(ranges) == 0 {
			return send(size, nil)
		}

		for some := range slices.Chunk(ranges, most) {
			blocks := make([]*csi.BlockMetadata, len(some))
			for i, r := range some {
				blocks[i] = &csi.BlockMetadata{ByteOffset: r.Offset, SizeBytes: r.Size}
			}
			if err := send(size, blocks); err != nil {
				return err
			}
		}
		return nil
	}
}
