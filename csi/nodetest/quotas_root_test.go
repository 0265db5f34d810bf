package nodetest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// BenchmarkCreateAndDelete compares volumes of each backend on one disk that has project quotas, with a
// directory of nobody's that is as durable and has no size.
func BenchmarkCreateAndDelete(b *testing.B) {
	for _, kind := range []string{"ext4", "xfs"} {
		b.Run(kind, func(b *testing.B) {
			n := nodetest.NewOnQuotas(b, kind, 8<<30)
			for _, backend := range []string{"quota", "btrfs", "image"} {
				b.Run(backend, func(b *testing.B) {
					r := volume.Request{Name: "v", Required: 512 << 20, Backend: backend}
					for b.Loop() {
						if err := n.Delete(b.Context(), n.MustCreate(r).ID); err != nil {
							b.Fatal(err)
						}
					}
				})
			}

			b.Run("directory", func(b *testing.B) {
				path := filepath.Join(n.Dir, "directory")
				for b.Loop() {
					if err := errors.Join(makeDir(path), os.Remove(path), syncDir(n.Dir)); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func makeDir(path string) error {
	return errors.Join(os.Mkdir(path, 0o755), syncDir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
