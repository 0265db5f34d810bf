// Package importer brings archives of images into a running trivet-cri: HTTP on a unix socket that only root
// may use, since CRI has no call for it. The server reads an archive as it comes, so that the store has one
// owner and nothing races with it.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/cri/image"
)

// Image is one that was imported.
type Image struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags,omitempty"`
}

// answer is what the server says when it is done.
type answer struct {
	Images []Image `json:"images,omitempty"`
	Error  string  `json:"error,omitempty"`
}

const (
	path     = "/v1/images"
	atOnce   = 2       // archives being read; each takes its size on the disk
	maxError = 4 << 10 // bytes of an error
)

// Server imports into a store.
type Server struct {
	images *image.Store
	log    *slog.Logger
	slots  chan struct{} // one for each archive that is being read or written
}

// New starts nothing.
func New(images *image.Store, log *slog.Logger) *Server {
	return &Server{images: images, log: log, slots: make(chan struct{}, atOnce)}
}

// Run serves until ctx ends, and returns when all imports have. It can be called once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, s.importing)
	mux.HandleFunc("GET "+path, s.exporting)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}

	// imports end with their connections
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()

	err := server.Serve(l)

	// those at work have ended then, and nobody enters any more
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}

	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}

	return err
}

// enter waits for a slot; leave gives it back.
func (s *Server) enter(r *http.Request) (leave func(), ok bool) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, true
	case <-r.Context().Done():
		return nil, false
	}
}

func (s *Server) importing(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(r)
	if !ok {
		return
	}
	defer leave()

	pinned, _ := strconv.ParseBool(r.URL.Query().Get("pin"))
	images, err := s.images.Import(r.Context(), r.Body, pinned)
	var a answer
	for _, i := range images {
		a.Images = append(a.Images, Image{ID: i.ID, Tags: i.Tags})
	}

	if err != nil {
		s.log.Warn("images were not imported", "err", err)
	}

	reply(w, a, err)
}

func (s *Server) exporting(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(r)
	if !ok {
		return
	}
	defer leave()

	out := &begun{ResponseWriter: w}
	err := s.images.Export(r.Context(), r.URL.Query()["name"], out)
	if err == nil {
		return
	}

	s.log.Warn("images were not exported", "err", err)
	if out.begun {
		// the only way to say that what was sent is not whole
		panic(http.ErrAbortHandler)
	}

	reply(w, answer{}, err)
}

// begun knows whether something was written.
type begun struct {
	http.ResponseWriter
	begun bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}

func reply(w http.ResponseWriter, a answer, err error) {
	status := http.StatusOK
	if err != nil {
		status, a.Error = http.StatusUnprocessableEntity, err.Error()
		a.Error = a.Error[:min(len(a.Error), maxError)]
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)

	// a client that has gone hears nothing
	_ = json.NewEncoder(w).Encode(a)
}
