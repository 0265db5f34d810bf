package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/csi/listing"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// onQuotas runs a test with a driver on a disk of each kind that has project quotas.
func onQuotas(t *testing.T, test func(t *testing.T, p *process)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(testenv.ProjectQuotas(t, kind), "node")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := mount.UnmountBelow(dir + "/kubelet"); err != nil {
					t.Error(err)
				}
			})
			test(t, newProcessIn(t, dir))
		})
	}
}

// quotaLife is the life of a volume with a project quota.
func (p *process) quotaLife(name string) *life {
	l := p.life(name)
	l.backend, l.grows = quotadir.Name, true
	return l
}

// noDirsLeft waits until the last file of deleted volumes is gone.
func (p *process) noDirsLeft() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	var left []string
	for range retry.Every(ctx, 100*time.Millisecond) {
		left = nil
		volumes, trash := quotadir.Paths(p.dir + "/data")
		for _, dir := range []string{volumes, trash} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				p.t.Fatal(err)
			}
			for _, e := range entries {
				left = append(left, e.Name())
			}
		}
		if len(left) == 0 {
			return
		}
	}
	p.t.Errorf("directories left: %v", left)
}

func TestKilledAtAnyMomentWithProjectQuotas(t *testing.T) {
	onQuotas(t, func(t *testing.T, p *process) {
		n := killsWanted(t)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute+time.Duration(n)*30*time.Second)
		defer cancel()

		lived := p.killDuringLives(ctx, n, 4, func(worker, i int) *life {
			return p.quotaLife(fmt.Sprintf("v%d-%d", worker, i))
		})
		t.Logf("killed %d times during the lives of %d volumes", n, lived)

		p.nothingListed(ctx)
		p.noDirsLeft()
		p.end(syscall.SIGTERM)
		p.nothingLeft()
	})
}

func TestPersonSeesVolumesWithProjectQuotas(t *testing.T) {
	onQuotas(t, func(t *testing.T, p *process) {
		ctx, l := t.Context(), p.quotaLife("v")
		err := doAll(ctx, []func(context.Context) error{l.create, l.stage, l.publish, l.write})
		if err != nil {
			t.Fatal(err)
		}

		if out, code := p.doctor(); code != 0 || !strings.Contains(out, "ok     project quotas of "+p.dir) {
			t.Errorf("doctor exits with %d:\n%s", code, out)
		}
		var volumes []listing.Volume
		p.decode(&volumes, "volumes")
		if len(volumes) != 1 || volumes[0].Backend != "quota" || volumes[0].Used == nil ||
			*volumes[0].Used < contentSize || len(volumes[0].PublishedOn) != 1 {
			t.Errorf("volumes: %+v", volumes)
		}
		var pool listing.Pool
		p.decode(&pool, "pool")
		if q := pool.Quota; q.Volumes != 1 || q.Promised != firstSize || q.Used < contentSize ||
			pool.Promisable["quota"] == 0 {
			t.Errorf("pool: %+v", pool)
		}

		_, err = l.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: l.id})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "backend quota") {
			t.Errorf("snapshot: %v", err)
		}
		p.exportAndImport(l)
		err = doAll(ctx, []func(context.Context) error{l.unpublish, l.unstage, l.delete})
		if err != nil {
			t.Fatal(err)
		}
		p.noDirsLeft()
		p.end(syscall.SIGTERM)
		p.nothingLeft()
	})
}

// exportAndImport has a copy of a volume that no pod uses, and looks at it.
func (p *process) exportAndImport(l *life) {
	p.t.Helper()
	p.do(l.fill, l.unpublish, l.unstage)
	stream, err := output(p.verb("export", l.id))
	if err != nil {
		p.t.Fatal(err)
	}

	// What does not fit leaves nothing, though root may write it.
	in := p.verb("import", "--name=small", "--backend=quota", "--size=1Mi")
	in.Stdin = strings.NewReader(stream)
	if out, err := output(in); err == nil {
		p.t.Errorf("more than fits was imported: %s", out)
	}

	in = p.verb("import", "--name=copy", "--backend=quota")
	in.Stdin = strings.NewReader(stream)
	if out, err := output(in); err != nil {
		p.t.Fatalf("%s, %v", out, err)
	}
	c := *l
	c.name, c.id = "copy", volume.ID("copy")
	p.do(c.stage, c.publish, c.read, c.unpublish, c.unstage, c.delete, l.stage, l.publish)
}
