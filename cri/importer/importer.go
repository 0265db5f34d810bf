// Package importer brings archives of images into a running trivet-cri, gets them out again, and gives and
// takes names, since CRI has no calls for it: HTTP on a unix socket that only root may use. The server reads
// an archive as it comes, so that the image store has one owner.
package importer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/cri/image"
)

// Images is the image store.
type Images interface {
	// Import reads an archive, and returns what it has imported, also beside an error.
	Import(ctx context.Context, archive io.Reader, o image.ImportOptions) ([]image.Image, error)

	// Export writes an archive of images.
	Export(ctx context.Context, names []string, to io.Writer) error

	// Tag gives an image further names, with move also those of other images.
	Tag(name string, further []string, move bool) error

	// Untag takes a name from an image, which goes with the last one.
	Untag(name string) error
}

// Image is an image that was imported.
type Image struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags,omitempty"`
}

// answer is what the server sends at the end of a call, and for an error.
type answer struct {
	Images []Image `json:"images,omitempty"`
	Error  string  `json:"error,omitempty"`
}

const (
	imagesPath = "/v1/images"
	namesPath  = "/v1/names"

	// maxArchives is how many archives are read or written at once: each takes its size on the disk.
	maxArchives = 2

	// maxError bounds the text of an error, in bytes.
	maxError = 4 << 10

	// headerTimeout bounds the time in which a client has to send the header of its request.
	headerTimeout = 10 * time.Second

	// stallTimeout is how long a client may neither send nor take anything while an archive is on its way:
	// until then it keeps others waiting.
	stallTimeout = 2 * time.Minute
)

// Server imports into an image store and exports from it.
type Server struct {
	images Images
	log    *slog.Logger

	// slots has one entry for each archive that is being read or written.
	slots chan struct{}
}

// New returns a Server for a store. It starts nothing.
func New(images Images, log *slog.Logger) *Server {
	return &Server{
		images: images,
		log:    log,
		slots:  make(chan struct{}, maxArchives),
	}
}

// Run serves until ctx ends, and returns when all imports have ended. It can be called once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+imagesPath, s.importImages)
	mux.HandleFunc("GET "+imagesPath, s.exportImages)
	mux.HandleFunc("POST "+namesPath, s.addNames)
	mux.HandleFunc("DELETE "+namesPath, s.removeName)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}

	// Imports end with their connections.
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()

	err := server.Serve(l)

	// Once all slots are taken here, those who had them have ended.
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}

	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}

	return err
}

// enter waits for a slot, which leave frees. ok is false if the client is gone before there is one.
func (s *Server) enter(r *http.Request) (leave func(), ok bool) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, true
	case <-r.Context().Done():
		return nil, false
	}
}

func (s *Server) importImages(w http.ResponseWriter, r *http.Request) {
	archive := &sender{conn: http.NewResponseController(w), from: bufio.NewReader(r.Body)}

	// The first byte may take as long as a build; only those who send take a slot.
	if err := archive.begin(); err != nil {
		return
	}

	leave, ok := s.enter(r)
	if !ok {
		return
	}
	defer leave()

	query := r.URL.Query()
	pinned, _ := strconv.ParseBool(query.Get("pin"))
	images, err := s.images.Import(r.Context(), archive, image.ImportOptions{
		Platform: query.Get("platform"),
		Pinned:   pinned,
	})
	if err != nil {
		s.log.Warn("images were not imported", "err", err)
	}

	var a answer
	for _, i := range images {
		a.Images = append(a.Images, Image{ID: i.ID, Tags: i.Tags})
	}

	reply(w, a, err)
}

func (s *Server) exportImages(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(r)
	if !ok {
		return
	}
	defer leave()

	out := &receiver{conn: http.NewResponseController(w), to: w}
	err := s.images.Export(r.Context(), r.URL.Query()["name"], out)
	if err == nil {
		return
	}

	s.log.Warn("images were not exported", "err", err)
	if out.written {
		// Only the connection's end can say that what was sent is not whole.
		panic(http.ErrAbortHandler)
	}

	reply(w, answer{}, err)
}

func (s *Server) addNames(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	move, _ := strconv.ParseBool(query.Get("move"))
	reply(w, answer{}, s.images.Tag(query.Get("image"), query["name"], move))
}

func (s *Server) removeName(w http.ResponseWriter, r *http.Request) {
	reply(w, answer{}, s.images.Untag(r.URL.Query().Get("name")))
}

func reply(w http.ResponseWriter, a answer, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusUnprocessableEntity
		text := err.Error()
		a.Error = text[:min(len(text), maxError)]
	}

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)

	// An error means that the client is gone.
	_ = json.NewEncoder(w).Encode(a)
}
