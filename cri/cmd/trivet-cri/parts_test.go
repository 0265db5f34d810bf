package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"

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

func TestWhatTheLibraryOfStreamsSaysIsInTheLog(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	var out bytes.Buffer
	p := &parts{
		cfg: config.Config{StreamAddr: "127.0.0.1:0"},
		log: slog.New(slog.NewTextHandler(&out, nil)),
	}
	if err := p.openStreams(); err != nil {
		t.Fatal(err)
	}

	runtime.HandleErrorWithContext(t.Context(), errors.New("port 80 is closed"), "forward a port")
	if got := out.String(); !strings.Contains(got, `level=ERROR msg="forward a port"`) {
		t.Errorf("%q", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.streams.Run(ctx); err != nil {
		t.Error(err)
	}
}
