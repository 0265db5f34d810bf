package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/internal/program"
)

// kind is a way in which a volume can be held.
type kind struct {
	name       string
	fsType     string
	parameters map[string]string
	block      bool
}

var kinds = []kind{
	{name: "subvolume", parameters: map[string]string{"backend": "btrfs"}},
	{name: "subvolume, cow", parameters: map[string]string{"backend": "btrfs", "nocow": "false"}},
	{name: "image in the pool, xfs", fsType: "xfs", parameters: map[string]string{"backend": "btrfs"}},
	{name: "image in the pool, ext4", fsType: "ext4", parameters: map[string]string{"backend": "btrfs"}},
	{name: "image in the pool, block", block: true, parameters: map[string]string{"backend": "btrfs"}},
	{name: "image on the disk, xfs", fsType: "xfs", parameters: map[string]string{"backend": "image"}},
	{name: "image on the disk, block", block: true, parameters: map[string]string{"backend": "image"}},
}

const (
	kindSize = 1 << 30
	kindData = 900 << 20 // written to the volume that is copied

	kindLives   = 30
	kindCopies  = 10
	kindRewrite = 3000 // random writes of
	kindBlock   = 8 << 10
)

// compareKinds measures volumes of each kind, of 1 GiB: the calls of a life, copies of one that is nearly
// full, and synced random writes over what is in it. What the driver refuses is left out.
func (b *bench) compareKinds(ctx context.Context, env *program.Env) error {
	fmt.Fprintln(env.Stdout, "| kind | create | stage | publish | unpublish | unstage | delete | snapshot "+
		"| clone | writes/s | after a snapshot | df |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, k := range kinds {
		m := &measured{
			driver: &b.driver,
			kind:   k,
			root:   fmt.Sprintf("/proc/%d/root", b.cmd.Process.Pid),
		}
		if err := m.run(ctx); err != nil && !isRefused(err) {
			return fmt.Errorf("%s: %w", k.name, err)
		}

		fmt.Fprintln(env.Stdout, m)
	}
	return nil
}

// isRefused reports whether a driver, of an earlier version for example, does not do what it was asked for.
func isRefused(err error) bool {
	code := status.Code(err)
	return code == codes.InvalidArgument || code == codes.Unimplemented
}

// measured is what was measured of one kind.
type measured struct {
	driver *driver
	kind   kind
	root   string // where the driver's mounts are seen

	took            map[string][]time.Duration // of calls that succeeded
	writes, rewrite float64                    // a second
	size            int64                      // as df has it
}

func (m *measured) String() string {
	var row strings.Builder
	fmt.Fprintf(&row, "| %s", m.kind.name)
	for _, step := range []string{
		"create", "stage", "publish", "unpublish", "unstage", "delete", "snapshot", "clone",
	} {
		all := m.took[step]
		if len(all) == 0 {
			row.WriteString(" | -")
			continue
		}

		slices.Sort(all)
		fmt.Fprintf(&row, " | %.2f ms", all[len(all)/2].Seconds()*1000)
	}
	fmt.Fprintf(&row, " | %.0f | %.0f | %d MiB |", m.writes, m.rewrite, m.size>>20)
	return row.String()
}

// do takes the time of a step.
func (m *measured) do(step string, f func() error) error {
	began := time.Now()
	err := f()
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	m.took[step] = append(m.took[step], time.Since(began))
	return nil
}

func (m *measured) run(ctx context.Context) error {
	m.took = map[string][]time.Duration{}
	for i := range kindLives {
		v := m.volume(fmt.Sprintf("kind-%d", i))
		if err := v.appear(ctx); err != nil {
			return err
		}
		if err := v.disappear(ctx); err != nil {
			return err
		}
	}

	v := m.volume("kind-data")
	err := v.appear(ctx)
	if err == nil {
		err = m.fill(ctx, v)
	}
	if gone := v.disappear(ctx); gone != nil {
		return errors.Join(err, gone)
	}
	return err
}

// kindVolume is a volume on its way.
type kindVolume struct {
	*measured
	controller csi.ControllerClient
	node       csi.NodeClient
	name, id   string
}

func (m *measured) volume(name string) *kindVolume {
	return &kindVolume{
		measured:   m,
		controller: csi.NewControllerClient(m.driver.conn),
		node:       csi.NewNodeClient(m.driver.conn),
		name:       name,
	}
}

func (v *kindVolume) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{
		Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	}}
	if v.kind.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		mount := &csi.VolumeCapability_MountVolume{FsType: v.kind.fsType}
		c.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
	}
	return c
}

func (v *kindVolume) stagePath() string {
	return filepath.Join(v.driver.dir, "kubelet", "stage", v.name)
}

func (v *kindVolume) target() string { return filepath.Join(v.driver.dir, "kubelet", "pods", v.name) }

// appear creates, stages and publishes the volume.
func (v *kindVolume) appear(ctx context.Context) error {
	// As kubelet does.
	if err := errors.Join(
		os.MkdirAll(v.stagePath(), 0o755),
		os.MkdirAll(filepath.Dir(v.target()), 0o755),
	); err != nil {
		return err
	}

	err := v.do("create", func() error {
		resp, err := v.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name:               v.name,
			CapacityRange:      &csi.CapacityRange{RequiredBytes: kindSize},
			VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
			Parameters:         v.kind.parameters,
		})
		v.id = resp.GetVolume().GetVolumeId()
		return err
	})
	if err != nil {
		return err
	}

	err = v.do("stage", func() error {
		_, err := v.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId:          v.id,
			StagingTargetPath: v.stagePath(),
			VolumeCapability:  v.capability(),
		})
		return err
	})
	if err != nil {
		return err
	}

	return v.do("publish", func() error {
		_, err := v.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId:          v.id,
			StagingTargetPath: v.stagePath(),
			TargetPath:        v.target(),
			VolumeCapability:  v.capability(),
		})
		return err
	})
}

func (v *kindVolume) disappear(ctx context.Context) error {
	return errors.Join(
		v.do("unpublish", func() error {
			request := &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target()}
			_, err := v.node.NodeUnpublishVolume(ctx, request)
			return err
		}),
		v.do("unstage", func() error {
			request := &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.stagePath()}
			_, err := v.node.NodeUnstageVolume(ctx, request)
			return err
		}),
		v.do("delete", func() error {
			_, err := v.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id})
			return err
		}),
	)
}

// fill fills a volume, writes over it, and copies it.
func (m *measured) fill(ctx context.Context, v *kindVolume) error {
	path := m.root + v.target()
	if !m.kind.block {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil {
			return err
		}

		m.size, path = int64(fs.Blocks)*fs.Bsize, filepath.Join(path, "data")
	}

	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	chunk := make([]byte, 1<<20)
	_, _ = rand.Read(chunk)
	for at := int64(0); at < kindData; at += int64(len(chunk)) {
		if _, err := f.WriteAt(chunk, at); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}

	if m.writes, err = rewrite(f); err != nil {
		return fmt.Errorf("write over: %w", err)
	}
	return m.copy(ctx, v, f)
}

// rewrite writes over random blocks of a file, synced one by one, and returns how many a second.
func rewrite(f *os.File) (float64, error) {
	block := make([]byte, kindBlock)
	began := time.Now()
	for range kindRewrite {
		_, _ = rand.Read(block)
		if _, err := f.WriteAt(block, mathrand.Int64N(kindData/kindBlock)*kindBlock); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return kindRewrite / time.Since(began).Seconds(), nil
}

// copy makes snapshots and clones of a volume in use, and writes over it while there is one.
func (m *measured) copy(ctx context.Context, v *kindVolume, f *os.File) error {
	for i := range kindCopies {
		id, err := v.snapshot(ctx, fmt.Sprint(v.name, i))
		if err != nil {
			return err
		}
		if i == 0 {
			if m.rewrite, err = rewrite(f); err != nil {
				return fmt.Errorf("write over what a snapshot has: %w", err)
			}
		}

		clone := m.volume(fmt.Sprint("clone-", i))
		err = m.do("clone", func() error {
			source := &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}
			resp, err := v.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name:               clone.name,
				CapacityRange:      &csi.CapacityRange{RequiredBytes: kindSize},
				VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
				Parameters:         v.kind.parameters,
				VolumeContentSource: &csi.VolumeContentSource{
					Type: &csi.VolumeContentSource_Snapshot{Snapshot: source},
				},
			})
			clone.id = resp.GetVolume().GetVolumeId()
			return err
		})
		if err != nil {
			return err
		}

		_, deleted := v.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: clone.id})
		_, gone := v.controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
		if err := errors.Join(deleted, gone); err != nil {
			return err
		}
	}

	return nil
}

func (v *kindVolume) snapshot(ctx context.Context, name string) (id string, err error) {
	err = v.do("snapshot", func() error {
		resp, err := v.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
			Name:           name,
			SourceVolumeId: v.id,
		})
		id = resp.GetSnapshot().GetSnapshotId()
		return err
	})
	return id, err
}
