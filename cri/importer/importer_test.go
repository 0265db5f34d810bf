package importer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/testenv"
)

// store is an image store whose archives are the text "archive of NAME".
type store struct {
	// reading is closed when an import has read something.
	reading chan struct{}
	once    sync.Once

	options image.ImportOptions
	partial bool

	// tagged is what it has heard last about names.
	tagged string
}

const (
	prefix  = "archive of "
	refused = "refused one"
)

func (s *store) Import(_ context.Context, archive io.Reader, o image.ImportOptions) ([]image.Image, error) {
	head := make([]byte, len(prefix))
	if _, err := io.ReadFull(archive, head); err != nil {
		return nil, err
	}

	s.once.Do(func() { close(s.reading) })
	if string(head) == refused {
		return nil, errors.New("refused at once")
	}

	name, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	if string(head) != prefix {
		return nil, errors.New("not an archive")
	}

	s.options = o
	return []image.Image{{ID: "sha256:1", Tags: []string{string(name)}}}, nil
}

func (s *store) Export(_ context.Context, names []string, to io.Writer) error {
	if s.partial {
		io.WriteString(to, prefix)
		return errors.New("disk is broken")
	}
	if names[0] == "absent:1" {
		return errors.New("absent:1: not found")
	}
	_, err := io.WriteString(to, prefix+names[0])
	return err
}

// serve runs a Server for a store until end is called, which waits until it has ended.
func serve(t *testing.T, s *store) (socket string, end func()) {
	t.Helper()
	s.reading = make(chan struct{})
	socket = filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- importer.New(s, slog.New(slog.DiscardHandler)).Run(ctx, l) }()
	end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		ended <- nil
	}

	t.Cleanup(end)
	return socket, end
}

func (s *store) Tag(name string, further []string, move bool) error {
	s.tagged = fmt.Sprint(name, further, move)
	return nil
}

func (s *store) Untag(name string) error {
	if name == "absent:1" {
		return errors.New("absent:1: not found")
	}
	s.tagged = "not " + name
	return nil
}

func TestImagesAreImportedAndExported(t *testing.T) {
	s := &store{}
	socket, _ := serve(t, s)
	o := image.ImportOptions{Platform: "linux/arm64", Pinned: true}
	images, err := importer.Send(t.Context(), socket, strings.NewReader(prefix+"app:1"), o)
	if err != nil || len(images) != 1 || images[0].Tags[0] != "app:1" || s.options != o {
		t.Errorf("imported %v as %+v, %v", images, s.options, err)
	}

	var archive bytes.Buffer
	if err := importer.Receive(t.Context(), socket, []string{"app:1"}, &archive); err != nil {
		t.Error(err)
	}
	if archive.String() != prefix+"app:1" {
		t.Errorf("exported %q", archive.String())
	}
}

func TestErrorOfTheStoreReachesTheClient(t *testing.T) {
	socket, _ := serve(t, &store{})
	err := importer.Receive(t.Context(), socket, []string{"absent:1"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "absent:1") {
		t.Errorf("export: %v", err)
	}
	_, err = importer.Send(t.Context(), socket, strings.NewReader("something else"), image.ImportOptions{})
	if err == nil || !strings.Contains(err.Error(), "not an archive") {
		t.Errorf("import: %v", err)
	}
}

// The client sends much more than a connection holds, and nobody reads it.
func TestReasonReachesAClientThatStillSends(t *testing.T) {
	socket, _ := serve(t, &store{})
	archive := io.MultiReader(strings.NewReader(refused), io.LimitReader(zeros{}, 64<<20))
	_, err := importer.Send(t.Context(), socket, archive, image.ImportOptions{})
	if err == nil || err.Error() != "refused at once" {
		t.Errorf("error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestNamesAreGivenAndTaken(t *testing.T) {
	s := &store{}
	socket, _ := serve(t, s)
	if err := importer.Tag(t.Context(), socket, "a:1", []string{"b:1", "c:1"}, true); err != nil {
		t.Error(err)
	}
	if want := "a:1[b:1 c:1] true"; s.tagged != want {
		t.Errorf("the store was told %s, want %s", s.tagged, want)
	}

	if err := importer.Untag(t.Context(), socket, "a:1"); err != nil || s.tagged != "not a:1" {
		t.Errorf("the store was told %s, %v", s.tagged, err)
	}
	err := importer.Untag(t.Context(), socket, "absent:1")
	if err == nil || err.Error() != "absent:1: not found" {
		t.Errorf("error %v", err)
	}
}

func TestServerThatIsOlderIsNamed(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}

	server := &http.Server{Handler: http.NotFoundHandler()}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	err = importer.Untag(t.Context(), socket, "a:1")
	if err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("error %v", err)
	}

	server.Close()
	<-ended
}

func TestArchiveThatIsNotWholeIsAnError(t *testing.T) {
	socket, _ := serve(t, &store{partial: true})
	err := importer.Receive(t.Context(), socket, []string{"app:1"}, io.Discard)
	if err == nil {
		t.Error("the client takes half an archive for a whole one")
	}
}

func TestServerEndsThoughAClientStalls(t *testing.T) {
	s := &store{}
	socket, end := serve(t, s)
	stalled, begin := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := importer.Send(context.Background(), socket, stalled, image.ImportOptions{})
		sent <- err
	}()

	if _, err := io.WriteString(begin, prefix); err != nil {
		t.Fatal(err)
	}

	<-s.reading
	end()
	begin.Close()
	if err := <-sent; err == nil {
		t.Error("the client takes the import for a success")
	}
}

func TestClientThatGivesUpEndsItsImport(t *testing.T) {
	socket, end := serve(t, &store{})
	broken := errors.New("broken")
	archive := io.MultiReader(strings.NewReader(prefix), failing{broken})
	if _, err := importer.Send(t.Context(), socket, archive, image.ImportOptions{}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	end()
}

// The archive is a pipe whose writer has stopped for a while.
func TestClientEndsWithTheServerThoughItsArchiveStalls(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	stalled, begin := io.Pipe()
	defer begin.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := importer.Send(context.Background(), socket, stalled, image.ImportOptions{})
		sent <- err
	}()

	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(begin, prefix); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}

	server.Close()
	if err := <-sent; err == nil || !strings.Contains(err.Error(), "trivet-cri has ended") {
		t.Errorf("error %v", err)
	}
}

func TestClientEndsWhenItIsToldToThoughItsArchiveStalls(t *testing.T) {
	socket, _ := serve(t, &store{})
	stalled, begin := io.Pipe()
	defer begin.Close()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() {
		_, err := importer.Send(ctx, socket, stalled, image.ImportOptions{})
		sent <- err
	}()

	if _, err := io.WriteString(begin, prefix); err != nil {
		t.Fatal(err)
	}

	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
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
