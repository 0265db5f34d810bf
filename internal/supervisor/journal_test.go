package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/trivet-node/trivet/internal/supervisor"
)

func TestOnlyTheStreamThatIsNamedIsTheJournal(t *testing.T) {
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	stream, other := open("stream"), open("other")

	if supervisor.Journal(stream) {
		t.Error("there is a journal without systemd")
	}

	var stat syscall.Stat_t
	if err := syscall.Fstat(int(stream.Fd()), &stat); err != nil {
		t.Fatal(err)
	}

	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	if !supervisor.Journal(stream) {
		t.Error("the stream is not known")
	}
	if supervisor.Journal(other) {
		t.Error("a file to which output was redirected is taken for the journal")
	}

	stream.Close()
	if supervisor.Journal(stream) {
		t.Error("a closed file is taken for the journal")
	}
}
