// Package tally counts the calls of trivet-cni. Each process of it lives for a few milliseconds and cannot be
// asked, so all of them count in one file, which trivet-netd makes when it serves metrics, and reads. Without
// the file nothing is counted.
package tally

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/blocking"
)

// Path is where the file is.
const Path = "/run/trivet/metrics/trivet-cni.calls"

// verbs are the operations of CNI that are counted.
var verbs = []string{"ADD", "DEL", "CHECK", "GC", "STATUS"}

// The codes of errors: 0 for none, those that CNI reserves up to lastCode, and two for all others.
const (
	lastCode = 11
	ofPlugin = lastCode + 1
	other    = lastCode + 2
	codes    = lastCode + 3
)

// The file is a mark, and for each verb and code two numbers: calls, and the nanoseconds that they took. The
// byte order is that of the machine.
const (
	mark     = 0x31696e637672740a
	numbers  = 2
	fileSize = 4096
)

// Count is the calls of one verb with one result.
type Count struct {
	Verb string
	// Code is that of the error: "0" for none, "plugin" for one of a plugin's own (100 and more), "other".
	Code  string
	Calls uint64
	// Took is the duration of all of them together.
	Took time.Duration
}

// File is the file, open for reading.
type File struct{ words []uint64 }

// Create opens the file and makes it if there is none. What was counted before stays: the numbers end with
// the boot. Its pages are allocated, so that a disk that becomes full does not hit those who count.
func Create(path string) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}

	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if size := info.Size(); size != 0 && size != fileSize {
		return nil, fmt.Errorf("%s has %d bytes: it is not a file of counts", path, size)
	}

	if err := unix.Fallocate(int(f.Fd()), 0, 0, fileSize); err != nil {
		return nil, fmt.Errorf("allocate %s: %w", path, err)
	}

	words, err := mapped(f)
	if err != nil {
		return nil, err
	}
	if !atomic.CompareAndSwapUint64(&words[0], 0, mark) && words[0] != mark {
		return nil, errors.Join(fmt.Errorf("%s is not a file of counts", path), unmap(words))
	}
	return &File{words}, nil
}

// Counts returns the calls that there were, without the kinds of which there were none.
func (f *File) Counts() []Count {
	var out []Count
	for v, verb := range verbs {
		for code := range codes {
			at := cell(v, code)
			calls := atomic.LoadUint64(&f.words[at])
			if calls == 0 {
				continue
			}
			out = append(out, Count{
				Verb:  verb,
				Code:  name(code),
				Calls: calls,
				Took:  time.Duration(atomic.LoadUint64(&f.words[at+1])),
			})
		}
	}
	return out
}

// Close closes the file.
func (f *File) Close() error { return unmap(f.words) }

// Add counts a call, with the CNI code of its error or 0. It returns false if it has nothing to count in.
// Nothing that is wrong with the file is worth an error of the call.
func Add(path, verb string, code uint, took time.Duration) (counted bool) {
	v := indexOf(verb)
	if v < 0 {
		return false
	}

	f, err := blocking.Open(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()

	if info, err := f.Stat(); err != nil || info.Size() != fileSize {
		return false
	}

	words, err := mapped(f)
	if err != nil {
		return false
	}
	defer func() { _ = unmap(words) }()

	// A page that cannot be had is a fault, which must not end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			counted = false
		}
	}()

	if atomic.LoadUint64(&words[0]) != mark {
		return false
	}
	at := cell(v, kind(code))
	atomic.AddUint64(&words[at], 1)
	atomic.AddUint64(&words[at+1], uint64(max(took, 0)))
	return true
}

func mapped(f *os.File) ([]uint64, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, fileSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(&data[0])), fileSize/8), nil
}

func unmap(words []uint64) error {
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), fileSize))
}

// cell is where the numbers of a verb and a kind of code begin. The first words are the mark's.
func cell(verb, code int) int { return numbers + numbers*(verb*codes+code) }

func indexOf(verb string) int {
	for i, v := range verbs {
		if v == verb {
			return i
		}
	}
	return -1
}

// kind is the row of a code.
func kind(code uint) int {
	switch {
	case code <= lastCode:
		return int(code)
	case code >= 100:
		return ofPlugin
	}
	return other
}

func name(kind int) string {
	switch kind {
	case ofPlugin:
		return "plugin"
	case other:
		return "other"
	}
	return strconv.Itoa(kind)
}
