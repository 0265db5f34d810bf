// Package importer brings archives of images into a running trivet-cri: HTTP on a unix socket that only root
// may use, since CRI has no call for it. The server reads an archive as it comes, so that the store has one
// owner and nothing races with it.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/program"
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
	slots  chan struct{}

	running sync.WaitGroup // imports
}

// New starts nothing.
func New(images *image.Store, log *slog.Logger) *Server {
	return &Server{images: images, log: log, slots: make(chan struct{}, atOnce)}
}

// Run serves until ctx ends, and returns when all imports have.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, s.serve)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() }) // imports end with their connections
	defer stop()
	err := server.Serve(l)
	s.running.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.running.Add(1)
	defer s.running.Done()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	pinned, _ := strconv.ParseBool(r.URL.Query().Get("pin"))
	images, err := s.images.Import(r.Context(), r.Body, pinned)
	var a answer
	for _, i := range images {
		a.Images = append(a.Images, Image{ID: i.ID, Tags: i.Tags})
	}
	status := http.StatusOK
	if err != nil {
		s.log.Warn("images were not imported", "err", err)
		status, a.Error = http.StatusUnprocessableEntity, err.Error()
		a.Error = a.Error[:min(len(a.Error), maxError)]
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // a client that has gone hears nothing
}

// Send gives an archive to the server on a socket, and returns what it has imported, also beside an error.
func Send(ctx context.Context, socket string, archive io.Reader, pin bool) ([]Image, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	address := fmt.Sprintf("http://trivet-cri%s?pin=%t", path, pin)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, io.NopCloser(archive))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if _, refused := errors.AsType[*net.OpError](err); refused {
		what, do := "nobody serves "+socket, "start trivet-cri, or name its state directory"
		return nil, &program.CantRunError{What: what, Do: do}
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("answer of trivet-cri (%s): %w", response.Status, err)
	}
	if a.Error != "" {
		return a.Images, errors.New(a.Error)
	}
	return a.Images, nil
}
