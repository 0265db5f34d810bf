// Package prefault asks for the memory that a program of a few milliseconds is about to touch: the kernel
// maps it in two system calls. It does so when it is imported, before most other packages are initialised: it
// imports nothing that is initialised late.
//
// Each page that is touched for the first time is an exception otherwise: some 120 of them after this point
// in an ADD of trivet-cni, each of which takes many times as long as a page of those that come at once.
package prefault

import (
	"syscall"
	"unsafe"
)

// Values of madvise(2) since Linux 5.14. An older kernel refuses them, and nothing is lost.
const (
	populateRead  = 22
	populateWrite = 23
)

//nolint:gochecknoinits // main comes after half of the pages have been touched
func init() {
	populateHeap()
	populateText()
}

// heapAhead is how much of Go's heap a call comes to use from here on.
const heapAhead = 512 << 10

// newest is in what the heap got last.
var newest *[4096]byte

// populateHeap maps the pages that the heap grows into, which follow one another.
func populateHeap() {
	newest = new([4096]byte)
	madvise(uintptr(unsafe.Pointer(newest)), heapAhead, populateWrite)
}

// elf is how a program's file begins (elf(5), ELF64).
type elf struct {
	ident         [16]byte
	kind          uint16
	machine       uint16
	version       uint32
	entry         uint64
	programOffset uint64
	sectionOffset uint64
	flags         uint32
	size          uint16
	programSize   uint16
	programs      uint16
	sections      [3]uint16
	program       [16]segment
}

// segment is a part of the file that is mapped.
type segment struct {
	kind       uint32
	flags      uint32
	offset     uint64
	address    uint64
	physical   uint64
	sizeInFile uint64
	size       uint64
	alignment  uint64
}

// Values of its fields.
const (
	fixedAddress = 2
	load         = 1
	executable   = 1
)

// populateText maps the code, of which a call touches each part. It is in the cache of the kernel, which maps
// 64 KiB of it for each exception.
func populateText() {
	file := readELF()
	begin, size := file.text()
	madvise(uintptr(begin), uintptr(size), populateRead)
}

// text returns where the code of the program is, and how many bytes; 0 for a file that is not like those of
// Go's linker.
func (file *elf) text() (begin, size uint64) {
	if file.kind != fixedAddress || file.programOffset != uint64(unsafe.Offsetof(file.program)) {
		return 0, 0
	}
	for _, s := range file.program[:min(int(file.programs), len(file.program))] {
		if s.kind == load && s.flags&executable != 0 {
			return s.address, s.size
		}
	}
	return 0, 0
}

// readELF returns the beginning of the program's own file, or less of it after an error.
func readELF() (file elf) {
	fd, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return file
	}
	_, _ = syscall.Read(fd, unsafe.Slice((*byte)(unsafe.Pointer(&file)), unsafe.Sizeof(file)))
	_ = syscall.Close(fd)
	return file
}

// madvise asks for the pages of a part of the memory, whose size differs with the machine's architecture and
// kernel. Without them, they come one by one.
func madvise(address, size, advice uintptr) {
	page := uintptr(syscall.Getpagesize())
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, address&^(page-1), size, advice)
}
