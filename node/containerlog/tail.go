package containerlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// chunk is how much is read at a time on the way back from the end of a file.
const chunk = 64 << 10

// tailOffset finds where the last want whole lines of the log begin, and how many there are (want at most). Entries that go on
// (tag P) belong to the line that they begin.
func tailOffset(f io.ReadSeeker, want int64) (offset, found int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}
	// tail holds what has been read but whose beginning is still unknown.
	var tail []byte
	for at := end; at > 0; {
		n := min(chunk, at)
		at -= n
		block := make([]byte, n, n+int64(len(tail)))
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		if _, err := io.ReadFull(f, block); err != nil {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		tail = append(block, tail...)
		for {
			// The entry that begins after the last but one line end.
			body := bytes.TrimSuffix(tail, []byte("\n"))
			i := bytes.LastIndexByte(body, '\n')
			if i < 0 && at > 0 {
				break
			}
			if len(tail) == 0 {
				break
			}
			e, err := ParseEntry(body[i+1:])
			if whole := err != nil || !e.Partial; whole {
				if found == want {
					return at + int64(len(tail)), found, nil
				}
				found++
			}
			tail = tail[:i+1]
		}
	}
	return 0, found, nil
}

// countLines counts the whole lines of a rotated file.
func countLines(name string) (int64, error) {
	f, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n int64
	for r := bufio.NewReader(f); ; n++ {
		if err := skipLine(r); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return 0, fmt.Errorf("read rotated log %s: %w", name, err)
		}
	}
}

// skipLine reads over one whole line: all its entries.
func skipLine(r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && len(line) == 0 {
			return err
		}
		if e, perr := ParseEntry(bytes.TrimSuffix(line, []byte("\n"))); perr != nil || !e.Partial {
			return nil
		}
	}
}

// sameFile tells whether path still names f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
