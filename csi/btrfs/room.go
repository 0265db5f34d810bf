package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Room is how the bytes of a file system that is on one device are used.
type Room struct {
	Device      int64 // what the file system takes of its device
	Unallocated int64 // of that, bytes that belong to no chunk yet
	Data        Chunks
	Metadata    Chunks
}

// Chunks are the parts of the device that hold one kind of things.
type Chunks struct {
	Size int64
	Busy int64 // what is in them, and what is reserved for writes under way
}

// Free returns how many bytes of data can be written.
func (r Room) Free() int64 { return r.Unallocated + max(0, r.Data.Size-r.Data.Busy) }

// Content returns how many bytes are in use or about to be.
func (r Room) Content() int64 { return r.Data.Busy + r.Metadata.Busy }

// Meter measures the room of a file system several times a second at next to no cost: the files of sysfs(5)
// that it reads stay open.
type Meter struct {
	dir            *os.File // on the file system
	data, metadata chunkFiles
}

// chunkFiles say how large the chunks of a kind are, and what they are taken by.
type chunkFiles struct {
	size         *os.File
	busy         []*os.File
	used, mayUse *os.File // of busy
}

// takers are the files with bytes that nobody else can have: used, freed by the running transaction, reserved
// for writes under way, and unused parts of chunks that are being emptied.
var takers = []string{"bytes_used", "bytes_pinned", "bytes_reserved", "bytes_may_use", "bytes_readonly"}

// NewMeter returns the meter of the file system that the open directory is on. The directory is used as long
// as the meter is.
func NewMeter(dir *os.File, fs Info) (*Meter, error) {
	m := &Meter{dir: dir}
	base := "/sys/fs/btrfs/" + fs.UUID + "/allocation/"
	var errs [2]error
	m.data, errs[0] = openChunkFiles(base + "data")
	m.metadata, errs[1] = openChunkFiles(base + "metadata")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("measure btrfs of %s: %w", dir.Name(), err), m.Close())
	}
	return m, nil
}

func openChunkFiles(dir string) (chunkFiles, error) {
	var c chunkFiles
	var err error
	if c.size, err = os.Open(filepath.Join(dir, "total_bytes")); err != nil {
		return c, err
	}

	for _, name := range takers {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return c, err
		}

		c.busy = append(c.busy, f)
		switch name {
		case "bytes_used":
			c.used = f
		case "bytes_may_use":
			c.mayUse = f
		}
	}

	return c, nil
}

// Close closes the files. The directory stays open.
func (m *Meter) Close() error { return errors.Join(m.data.close(), m.metadata.close()) }

func (c chunkFiles) close() error {
	var err error
	for _, f := range append(c.busy, c.size) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Room measures.
func (m *Meter) Room() (Room, error) {
	var r Room
	dev := devInfo{id: onlyDevice}
	err := ioctl(m.dir, iocDevInfo, &dev)
	if err == nil {
		r.Data, err = m.data.read()
	}
	if err == nil {
		r.Metadata, err = m.metadata.read()
	}
	if err != nil {
		return Room{}, fmt.Errorf("measure btrfs of %s: %w", m.dir.Name(), err)
	}

	r.Device = int64(dev.totalBytes)
	r.Unallocated = int64(dev.totalBytes) - int64(dev.bytesUsed)
	return r, nil
}

// Written measures what is in the file system and what is about to be: the same as long as nobody writes. It
// costs less than Room.
func (m *Meter) Written() (int64, error) {
	var sum int64
	for _, f := range []*os.File{m.data.used, m.data.mayUse, m.metadata.used, m.metadata.mayUse} {
		bytes, err := readNumber(f)
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return sum, nil
}

func (c chunkFiles) read() (Chunks, error) {
	size, err := readNumber(c.size)
	if err != nil {
		return Chunks{}, err
	}
	busy, err := c.readBusy()
	return Chunks{Size: size, Busy: busy}, err
}

func (c chunkFiles) readBusy() (int64, error) {
	var sum int64
	for _, f := range c.busy {
		bytes, err := readNumber(f)
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return sum, nil
}

// smallChunks are less than the chunks of metadata that the kernel makes.
const smallChunks = 32 << 20

// EnlargeMetadata gives a new file system a chunk of metadata as the kernel makes them, in place of the one
// of 8 MiB that mkfs.btrfs makes: nobody gets another one when chunks of data have taken all there is, and
// then no file can be made. It does nothing where there is one already.
func (m *Meter) EnlargeMetadata() error {
	metadata, err := m.metadata.read()
	if err != nil || metadata.Size >= smallChunks {
		return err
	}
	if err := ioctl(m.dir, iocBalance, &balance{flags: balanceMetadata}); err != nil {
		return fmt.Errorf("move the metadata of the btrfs of %s to a larger chunk: %w", m.dir.Name(), err)
	}
	return nil
}

// DataEnd returns where the last chunk of data on the device ends: beyond, no data has to be moved for the
// file system to become smaller.
func (m *Meter) DataEnd() (int64, error) {
	var end uint64
	arg := searchArgs{searchKey: searchKey{
		tree:           chunkTree,
		minObject:      firstFree,
		maxObject:      firstFree,
		minType:        chunkItem,
		maxType:        chunkItem,
		maxOffset:      math.MaxUint64,
		maxTransaction: math.MaxUint64,
	}}

	for {
		arg.items = math.MaxUint32
		if err := ioctl(m.dir, iocTreeSearch, &arg); err != nil {
			return 0, fmt.Errorf("search the chunks of the btrfs of %s: %w", m.dir.Name(), err)
		}
		if arg.items == 0 {
			return int64(end), nil
		}

		at := arg.found[:]
		for range arg.items {
			// struct btrfs_chunk, of one stripe: length, owner, stripe length, kind, ..., device, offset.
			chunk := at[searchHeader:]
			if binary.LittleEndian.Uint64(chunk[24:])&dataChunk != 0 {
				end = max(end, binary.LittleEndian.Uint64(chunk[56:])+binary.LittleEndian.Uint64(chunk))
			}

			arg.minOffset = binary.NativeEndian.Uint64(at[16:]) + 1
			at = at[searchHeader+binary.NativeEndian.Uint32(at[28:]):]
		}
	}
}

// readNumber reads an open file of sysfs again from its start.
func readNumber(f *os.File) (int64, error) {
	var buf [32]byte
	n, err := f.ReadAt(buf[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
}
