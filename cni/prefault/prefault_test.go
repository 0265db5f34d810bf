package prefault

import (
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestTheHeapGrowsIntoPagesThatAreThere(t *testing.T) {
	needPopulate(t)
	populateHeap()

	// Nothing has been written into them. Go asks the kernel for 4 MiB at a time, where the call ends.
	const arena = 4 << 20
	begin := uintptr(unsafe.Pointer(newest))
	end := min(begin+heapAhead, begin&^(arena-1)+arena)
	if missing := absent(t, begin, end); missing > 0 {
		t.Errorf("%d pages of the heap from %#x to %#x are not there", missing, begin, end)
	}
}

func TestTheCodeIsThatOfTheProgram(t *testing.T) {
	file := readELF()
	if string(file.ident[:4]) != "\x7fELF" {
		t.Fatalf("the program's file begins with %q", file.ident)
	}

	here := uint64(reflect.ValueOf(TestTheCodeIsThatOfTheProgram).Pointer())
	begin, size := file.text()
	if here < begin || here >= begin+size {
		t.Errorf("a function of the program is at %#x, its code at %#x, %d bytes", here, begin, size)
	}
}

func TestTheWholeCodeIsThere(t *testing.T) {
	needPopulate(t)
	file := readELF()
	begin, size := file.text()

	// The program goes on from its file: what it has used is mapped again, one by one.
	madvise(uintptr(begin), uintptr(size), unix.MADV_DONTNEED)
	populateText()
	if missing := absent(t, uintptr(begin), uintptr(begin+size)); missing > 0 {
		t.Errorf("%d pages of %d bytes of code at %#x are not there", missing, size, begin)
	}
}

// needPopulate skips a test on a kernel without what is tested.
func needPopulate(t *testing.T) {
	t.Helper()
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()

	err = unix.Madvise(page, populateWrite)
	if errors.Is(err, unix.EINVAL) {
		testenv.Skip(t, "the kernel has no MADV_POPULATE_WRITE (Linux 5.14)")
	}
	if err != nil {
		t.Fatalf("MADV_POPULATE_WRITE of a page: %v", err)
	}
}

// absent counts the pages of a part of the memory that are not mapped. The kernel has those of a program's
// file in its cache, so mincore(2) would find them there in any case.
func absent(t *testing.T, begin, end uintptr) (count int) {
	t.Helper()
	file, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()

	const entry = 8
	size := uintptr(os.Getpagesize())
	first := begin / size
	entries := make([]byte, ((end+size-1)/size-first)*entry)
	if _, err := file.ReadAt(entries, int64(first*entry)); err != nil {
		t.Fatal(err)
	}

	for e := range slices.Chunk(entries, entry) {
		if isPresent := binary.NativeEndian.Uint64(e)>>63 == 1; !isPresent {
			count++
		}
	}
	return count
}
