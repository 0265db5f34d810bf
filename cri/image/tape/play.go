package tape

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Play writes the stream of the tape in a file, with the content of the files below dir.
func Play(ctx context.Context, file, dir string, to io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()

	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return fmt.Errorf("tape %s: %w", file, err)
	}
	defer z.Close()

	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	p := player{
		tape: bufio.NewReader(z),
		root: root,
		to:   to,
	}
	if p.names, err = byInode(ctx, root); err != nil {
		return err
	}

	for err == nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		err = p.piece()
	}

	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("tape %s: %w", file, err)
	}

	return nil
}

// maxNames bounds the names of a layer's files, together, in bytes.
const maxNames = 64 << 20

// byInode returns a name of each regular file.
func byInode(ctx context.Context, root *os.Root) (map[uint64]string, error) {
	names := make(map[uint64]string)
	length := 0
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}

		if length += len(name); length > maxNames {
			return errors.New("the names of the files are too long together")
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		names[info.Sys().(*syscall.Stat_t).Ino] = name
		return nil
	})
	return names, err
}

// player is a tape that is being played.
type player struct {
	tape  *bufio.Reader
	root  *os.Root
	names map[uint64]string
	to    io.Writer
}

// piece writes what the next piece stands for. Its error is io.EOF at the end of the tape.
func (p *player) piece() error {
	number, err := binary.ReadUvarint(p.tape)
	if err != nil {
		return err
	}

	size := int64(number >> 1)
	if number&1 == 1 {
		return whole(p.file(size))
	}

	_, err = io.CopyN(p.to, p.tape, size)
	return whole(err)
}

// file writes the content of the file whose inode is next on the tape.
func (p *player) file(size int64) error {
	inode, err := binary.ReadUvarint(p.tape)
	if err != nil {
		return err
	}

	name, known := p.names[inode]
	if !known {
		return errors.New("a file of the stream is not there any more")
	}

	f, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()

	_, err = io.CopyN(p.to, f, size)
	return err
}

// whole makes an end in the middle of a piece an error of its own.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
