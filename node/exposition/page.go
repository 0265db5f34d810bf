package exposition

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// clientTime is how long a client may take to read a page: one that is slower is cut.
const clientTime = 30 * time.Second

// Source writes a page, and returns until when the same page may be given to others.
type Source func(ctx context.Context, w *Writer) (until time.Time, err error)

// Page serves a page of metrics. It is written once for all who ask at the same time, compressed as it is
// written, and sent from there, so that many clients, or slow ones, hold one small text together. A client
// that does not want gzip gets it decompressed on the way.
type Page struct {
	source Source

	// mu is held while the page is written, and guards what follows.
	mu    sync.Mutex
	text  []byte
	until time.Time
}

// NewPage returns a page that is written when somebody asks for it.
func NewPage(source Source) *Page { return &Page{source: source} }

// ServeHTTP answers with the page, or with 500 and the error.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := p.compressed(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}

	// Not every ResponseWriter has a deadline; a client of one that has not is cut by its server.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(clientTime))
	w.Header().Set("Content-Type", ContentType)
	w.Header().Add("Vary", "Accept-Encoding")

	if acceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(text)
		return
	}

	plain, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}

	_, _ = io.Copy(w, plain)
}

// compressed returns the page, which is shared and must not be changed.
func (p *Page) compressed(ctx context.Context) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if time.Now().Before(p.until) {
		return p.text, nil
	}

	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}

	w := NewWriter(z)
	until, err := p.source(ctx, w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, err
	}

	p.text = out.Bytes()
	p.until = until
	return p.text, nil
}

// acceptsGzip reports whether a request wants gzip (RFC 9110, section 12.5.3). One that refuses it by a
// quality of 0 does not.
func acceptsGzip(h http.Header) bool {
	for _, values := range h.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(values, ",") {
			coding, params, _ := strings.Cut(part, ";")
			coding = strings.ToLower(strings.TrimSpace(coding))
			if coding != "gzip" && coding != "*" {
				continue
			}

			quality := strings.ReplaceAll(params, " ", "")
			return quality != "q=0" && !strings.HasPrefix(quality, "q=0.000") && quality != "q=0.0"
		}
	}

	return false
}
