package durable

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Update is Put for a record that exists, on a disk that may be full: when there is no room for a second
// file, the new content is written over the old one, into the block that the file has. A power loss during
// that could leave a mixture, although disks write whole sectors and a record is smaller than one. It is for
// records whose loss destroys nothing.
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

// overwrite replaces the content of a JSON file that exists. Spaces fill the rest of a file that was longer,
// so that it never ends with its old content.
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
