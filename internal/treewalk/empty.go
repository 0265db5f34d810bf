package treewalk

import (
	"errors"
	"io"
	"os"
)

// IsEmpty reports whether there is nothing in an open directory that was not read yet.
func IsEmpty(dir *os.File) (bool, error) {
	_, err := dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
