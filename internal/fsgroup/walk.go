package fsgroup

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// below changes all that is below the directory fd (O_PATH).
func (t tree) below(ctx context.Context, fd int, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}

	var w treewalk.Walk
	defer w.Close()

	if err := w.Enter(fd, ".", st); err != nil {
		return err
	}

	for {
		if err := ctx.Err(); err != nil {
			return err
		}

		dir, name, err := w.Next()
		if err != nil || dir < 0 {
			return err
		}
		if err := t.child(&w, dir, name); err != nil {
			return fmt.Errorf("%d directories down: %s: %w", w.Depth(), name, err)
		}
	}
}

// child changes an entry of a directory and, if it is a directory, makes it the present one.
func (t tree) child(w *treewalk.Walk, dir int, name string) error {
	fd, err := beneath.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, beneath.OneFileSystem)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		// Gone meanwhile, or another file system, which is not the volume's.
		return nil
	}

	if err != nil {
		return err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := t.apply(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}

	return w.Enter(fd, name, &st)
}
