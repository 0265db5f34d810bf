package importer_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/testenv"
)

// serve runs an importer until the returned function is called, which waits for its end.
func serve(t *testing.T) (socket, images string, end func()) {
	t.Helper()
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	socket, images = filepath.Join(dir, "s"), filepath.Join(dir, "images")
	store, err := image.Open(image.Config{Dir: images})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(store.Close)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- importer.New(store, slog.New(slog.DiscardHandler)).Run(ctx, l) }()
	end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		ended <- nil
	}

	t.Cleanup(end)
	return socket, images, end
}

func nothingIn(t *testing.T, dir string) {
	t.Helper()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("left in %s: %v, %v", dir, list, err)
	}
}

func TestServerEndsThoughAClientStalls(t *testing.T) {
	socket, images, end := serve(t)
	stalled, begin := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := importer.Send(context.Background(), socket, stalled, false)
		sent <- err
	}()

	// has been read in part
	if _, err := begin.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}

	end()
	begin.Close()
	if err := <-sent; err == nil {
		t.Error("the client was told of success")
	}

	nothingIn(t, filepath.Join(images, "tmp"))
}

func TestImportThatItsClientGivesUpLeavesNothing(t *testing.T) {
	socket, images, end := serve(t)
	broken := errors.New("broken")
	archive := io.MultiReader(strings.NewReader(strings.Repeat("\x00", 512)), failing{broken})
	if _, err := importer.Send(t.Context(), socket, archive, false); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	end()
	nothingIn(t, filepath.Join(images, "tmp"))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestServerThatIsNotThereIsNamed(t *testing.T) {
	err := importer.Receive(t.Context(), filepath.Join(t.TempDir(), "absent"), []string{"a"}, io.Discard)
	cannot, ok := errors.AsType[*program.CantRunError](err)
	if !ok || !strings.Contains(cannot.What, "absent") {
		t.Errorf("error %v", err)
	}
}

func TestErrorOfTheStoreReachesTheClient(t *testing.T) {
	socket, _, _ := serve(t)
	err := importer.Receive(t.Context(), socket, []string{"absent:1"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "absent:1") {
		t.Errorf("export: %v", err)
	}
	_, err = importer.Send(t.Context(), socket, strings.NewReader("x"), false)
	if err == nil || !strings.Contains(err.Error(), "archive") {
		t.Errorf("import: %v", err)
	}
}
