package logrotate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/containerlog"
	"github.com/trivet-node/trivet/node/logrotate"
)

// runtime opens the log anew when it is told to.
type runtime struct {
	cri.RuntimeServiceClient
	path string
	fail bool
}

func (r *runtime) ReopenContainerLog(
	context.Context,
	*cri.ReopenContainerLogRequest,
	...grpc.CallOption,
) (*cri.ReopenContainerLogResponse, error) {
	if r.fail {
		return nil, errors.New("no")
	}
	return &cri.ReopenContainerLogResponse{}, os.WriteFile(r.path, nil, 0o600)
}

func TestRotateKeepsTheNewestFilesAndLosesNoLine(t *testing.T) {
	r := &runtime{path: filepath.Join(t.TempDir(), "0.log")}
	rotator, err := logrotate.New(logrotate.Config{
		MaxFiles: 4,
		Runtime:  r,
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}

	// Earlier rotations, one of them killed while it compressed.
	for i := range 3 {
		name := fmt.Sprintf("%s.2026010%d-000000", r.path, i+1)
		if err := os.WriteFile(name, fmt.Appendf(nil, "2026-01-0%dT00:00:00Z stdout F old %d\n", i+1, i), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.WriteFile(r.path+".20260103-000000.tmp", []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path, []byte("2026-01-05T00:00:00Z stdout F now\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rotator.Rotate(t.Context(), "id", r.path); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	if err := containerlog.Read(t.Context(), r.path, containerlog.Options{Tail: -1}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "old 1\nold 2\nnow\n" {
		t.Errorf("the log is %q", out.String())
	}

	files, err := containerlog.Rotated(r.path)
	if err != nil || len(files) != 3 || !strings.HasSuffix(files[1], ".gz") ||
		strings.HasSuffix(files[2], ".gz") {
		t.Errorf("files %v, %v", files, err)
	}

	if _, err := os.Stat(r.path + ".20260103-000000.tmp"); err == nil {
		t.Error("a torn file stays")
	}
}

func TestALogThatIsNotReopenedKeepsItsName(t *testing.T) {
	r := &runtime{path: filepath.Join(t.TempDir(), "0.log"), fail: true}
	if err := os.WriteFile(r.path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	rotator, err := logrotate.New(logrotate.Config{Runtime: r})
	if err != nil {
		t.Fatal(err)
	}
	if err := rotator.Rotate(t.Context(), "id", r.path); err == nil {
		t.Error("no error")
	}
	if data, err := os.ReadFile(r.path); err != nil || string(data) != "x" {
		t.Errorf("%q %v", data, err)
	}
}
