package prefault

import (
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestTheHeapGrowsIntoPagesThatAreThere(t *testing.T) {
	page := unsafe.Slice((*byte)(unsafe.Pointer(newest)), pageSize)
	if err := unix.Madvise(page, populateWrite); err != nil {
		testenv.Skip(t, "the kernel has no MADV_POPULATE_WRITE (Linux 5.14): %v", err)
	}

	populateHeap()

	// Nothing has been written into it.
	if address := uintptr(unsafe.Pointer(newest)); !isThere(t, address) {
		t.Errorf("the page at %#x, which the heap got last, is not there", address)
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

// isThere reports whether a page is mapped.
func isThere(t *testing.T, address uintptr) bool {
	t.Helper()
	var state [1]byte
	address &^= pageSize - 1
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, address, pageSize, uintptr(unsafe.Pointer(&state)))
	if errno != 0 {
		t.Fatalf("mincore: %v", errno)
	}
	return state[0]&1 != 0
}
