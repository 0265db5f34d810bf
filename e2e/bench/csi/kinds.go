package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

// kind is a way in which a volume can be held. The zero kind is what the driver takes by itself.
type kind struct {
	name       string // begins with its class in deploy/csi, if there is one
	fsType     string
	parameters map[string]string
	secrets    map[string]string
	block      bool
}

var kinds = []kind{
	{name: "trivet: subvolume", parameters: pool()},
	{name: "trivet-checksums: subvolume, copy on write", parameters: pool("nocow", "false")},
	{name: "trivet-reserved: subvolume, reserved", parameters: pool("reserve", "true")},
	{name: "trivet-xfs: image in the pool, xfs", fsType: "xfs", parameters: pool()},
	{name: "image in the pool, ext4", fsType: "ext4", parameters: pool()},
	{
		name:       "trivet-encrypted: image in the pool, ext4, encrypted",
		fsType:     "ext4",
		parameters: pool("encryption", "fscrypt"),
		secrets:    map[string]string{"encryptionKey": strings.Repeat("the key of a benchmark ", 2)},
	},
	{name: "image in the pool, raw block", block: true, parameters: pool()},
	{name: "trivet-image: image on the disk, xfs", fsType: "xfs", parameters: onDisk("image")},
	{name: "image on the disk, raw block", block: true, parameters: onDisk("image")},
	{name: "directory with a project quota", parameters: onDisk("quota")},
}

// pool are the parameters of a class with volumes in the pool, and one more.
func pool(more ...string) map[string]string {
	parameters := onDisk("btrfs")
	if len(more) > 0 {
		parameters[more[0]] = more[1]
	}
	return parameters
}

func onDisk(backend string) map[string]string { return map[string]string{"backend": backend} }

// checkKinds returns an error if none of the kinds that parts measure has a name that begins so.
func checkKinds(begin string, parts []string) error {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	if slices.Contains(parts, "io") {
		all = append(all, bareLoop)
	}
	if slices.ContainsFunc(all, func(name string) bool { return strings.HasPrefix(name, begin) }) {
		return nil
	}
	return fmt.Errorf("there is no kind that begins with %q; there are %s", begin, strings.Join(all, "; "))
}

const (
	kindLives = 30
	kindSize  = 1 << 30
)

// compareKinds measures the calls in the life of a volume of 1 GiB of each kind, and what df says of it. What
// the driver refuses, such as what the kernel cannot do, is left out with the reason.
func (b *bench) compareKinds(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	fmt.Fprintln(env.Stdout, "\n| kind | create | stage | publish | expand | unpublish | unstage | delete "+
		"| df |\n|---|---|---|---|---|---|---|---|---|")
	return b.ofEachKind(ctx, env, func(k kind) error {
		calls, err := b.callsOf(ctx, k)
		if err != nil {
			return err
		}

		took := times{}
		for i := range kindLives {
			one, err := b.volume(fmt.Sprintf("kind-%d", i), k, kindSize).life(ctx, calls)
			if err != nil {
				return err
			}
			took.add(one)
		}

		row := []string{k.name}
		for _, s := range growing {
			row = append(row, took.median(s.name))
			if len(took[s.name]) > 0 {
				figures.Add(figure.Of("csi", s.name+" of 1 GiB, "+k.name, b.side, took[s.name]))
			}
		}

		size, err := b.shown(ctx, k)
		fmt.Fprintf(env.Stdout, "| %s | %s |\n", strings.Join(row, " | "), size)
		return err
	})
}

// callsOf are those in the life of a kind: ext4 grows in use where the kernel lets the driver only.
func (b *bench) callsOf(ctx context.Context, k kind) ([]step, error) {
	v := b.volume("growing", k, kindSize)
	err := v.appear(ctx)
	calls := growing
	if err == nil {
		err = v.expand(ctx)
	}
	if status.Code(err) == codes.FailedPrecondition {
		calls, err = steps, nil
	}
	return calls, errors.Join(err, v.disappear(ctx))
}

// ofEachKind calls f for each kind of volume that the driver does not refuse.
func (b *bench) ofEachKind(ctx context.Context, env *program.Env, f func(kind) error) error {
	for _, k := range kinds {
		if !strings.HasPrefix(k.name, b.options.kinds) {
			continue
		}

		tried := b.volume("tried", k, kindSize)
		err := errors.Join(tried.appear(ctx), tried.disappear(ctx))
		if isRefused(err) {
			fmt.Fprintf(env.Stdout, "| %s: refused: %v |\n", k.name, status.Convert(err).Message())
			continue
		}

		if err == nil {
			err = f(k)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

// isRefused reports whether a driver, of an earlier version for example, does not do what it was asked for.
func isRefused(err error) bool {
	code := status.Code(err)
	return code == codes.InvalidArgument || code == codes.Unimplemented
}

// shown is the size that df shows of a volume.
func (b *bench) shown(ctx context.Context, k kind) (string, error) {
	if k.block {
		return "-", nil
	}

	v := b.volume("shown", k, kindSize)
	err := v.appear(ctx)
	var fs unix.Statfs_t
	if err == nil {
		err = unix.Statfs(b.seen(v.target), &fs)
	}
	return fmt.Sprintf("%d MiB", int64(fs.Blocks)*fs.Bsize>>20), errors.Join(err, v.disappear(ctx))
}
