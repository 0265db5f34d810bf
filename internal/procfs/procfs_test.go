package procfs

import (
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDescriptorsAndSocketsAreCounted(t *testing.T) {
	pid := os.Getpid()
	before := Count([]int{pid})

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	after := Count([]int{pid})
	if after.Descriptors != before.Descriptors+2 || after.Sockets != before.Sockets+2 ||
		after.SocketsUnknown || after.Unknown {
		t.Errorf("%+v, then %+v", before, after)
	}

	if got := Count([]int{pid, pid}); got.Descriptors != 2*after.Descriptors {
		t.Errorf("twice: %+v", got)
	}
	if got := Count([]int{1 << 30}); got != (Open{}) {
		t.Errorf("of a process that is not there: %+v", got)
	}
}

func TestSocketsAmongManyDescriptorsAreUnknown(t *testing.T) {
	for range maxLooked + 10 {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}

	got := Count([]int{os.Getpid()})
	if got.Descriptors < maxLooked+10 || !got.SocketsUnknown || got.Unknown {
		t.Errorf("%+v", got)
	}
}

func TestLimitOfOpenFilesIsRead(t *testing.T) {
	var want unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		t.Fatal(err)
	}
	if got, err := OpenFilesLimit(os.Getpid()); err != nil || got != want.Cur {
		t.Errorf("%d, %v; want %d", got, err, want.Cur)
	}
	if _, err := OpenFilesLimit(1 << 30); err == nil {
		t.Error("a process that is not there has a limit")
	}
}

func TestLimitsAreNumbersOrUnlimited(t *testing.T) {
	for text, want := range map[string]uint64{
		"Limit Soft Hard\nMax open files            1024                 4096  files\n": 1024,
		"Max open files            unlimited            unlimited            files\n":   math.MaxUint64,
	} {
		if got, err := openFiles(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}

	for _, text := range []string{"", "Max open files", "Max open files -3 4 files\n"} {
		if got, err := openFiles(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
