package durable

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Update is Put for a record that is there already, on a disk that may be full: where there is no room for a
// second file, the new content is written over the old one, into the block that the file has. A power loss in
// the middle of that can tear the record, in theory: what disks write is a sector, and a record is smaller
// than one. So it suits records whose loss destroys nothing.
func (s *Store[T]) Update(name string, record T) error {
	err := s.Put(name, record)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	path, data, encodeErr := s.encode(name, record)
	if encodeErr != nil {
		return encodeErr
	}
	return overwrite(path, data)
}

// overwrite replaces the content of a JSON file that exists. Spaces fill up what was longer before, so that
// the file never ends in the rest of its old content.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	st, err := f.Stat()
	if err != nil {
		return err
	}

	if missing := int(st.Size()) - len(data); missing > 0 {
		data = append(data, bytes.Repeat([]byte{' '}, missing)...)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}

	return f.Sync()
}
