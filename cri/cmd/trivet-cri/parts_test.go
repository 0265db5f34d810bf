package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/trivet-node/trivet/cri/config"
)

func TestTheMonitorLogsIntoTheJournalOrAFile(t *testing.T) {
	p := &parts{cfg: config.Config{StateDir: "/run/trivet/cri"}}
	t.Setenv("JOURNAL_STREAM", "")
	if got := p.monitorLog(); got != "/run/trivet/cri/monitor.log" {
		t.Errorf("without a journal: %q", got)
	}

	stream, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()

	var stat syscall.Stat_t
	if err := syscall.Fstat(int(stream.Fd()), &stat); err != nil {
		t.Fatal(err)
	}

	before := os.Stderr
	defer func() { os.Stderr = before }()
	os.Stderr = stream
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	if got := p.monitorLog(); got != "" {
		t.Errorf("with a journal: %q", got)
	}
}
