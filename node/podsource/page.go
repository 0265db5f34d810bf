package podsource

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/manifest"
)

// Page is a document of static pods on a web server, one pod or a list of them.
type Page struct {
	source *Source
	url    string
	header http.Header
	every  time.Duration
	client *http.Client
	last   []byte // what was read last and could be parsed
}

// NewPage returns the page of a URL, which is asked for with the header at each interval. Until it has been
// read once, static pods that came from a page may only be unknown.
func NewPage(source *Source, url string, header http.Header, every time.Duration) *Page {
	source.expect(manifest.SourceURL)
	return &Page{
		source: source,
		url:    url,
		header: header,
		every:  every,
		client: &http.Client{Timeout: 10 * time.Second},
	}
}

// Run reads the page at each interval until ctx ends. While it cannot be read, or says nothing that can run,
// the pods stay as they are.
func (p *Page) Run(ctx context.Context) {
	for range retry.Every(ctx, p.every) {
		if err := p.read(ctx); err != nil && ctx.Err() == nil {
			p.source.problem(p.place(), err.Error())
		}
	}
}

// read makes the static pods those of the page. As for kubelet, an empty one has none.
func (p *Page) read(ctx context.Context) error {
	data, err := p.get(ctx)
	if err != nil {
		return err
	}
	if p.last != nil && bytes.Equal(data, p.last) {
		return nil
	}

	var pods []*v1.Pod
	if len(data) > 0 {
		var warnings []string
		pods, warnings, err = manifest.Pods(data, manifest.Origin{Node: p.source.node, URL: p.url})
		if err != nil {
			return err
		}

		for _, w := range warnings {
			p.source.problem(p.place(), w)
		}
	}

	p.last = data
	p.source.setStatic(manifest.SourceURL, pods)
	return nil
}

func (p *Page) get(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return nil, err
	}
	if p.header != nil {
		request.Header = p.header.Clone()
	}

	answer, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()

	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", p.place(), answer.Status)
	}

	data, err := io.ReadAll(io.LimitReader(answer.Body, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s has more than %d bytes", p.place(), maxManifest)
	}

	return data, err
}

// place is the URL for a log, without a password in it.
func (p *Page) place() string {
	u, err := url.Parse(p.url)
	if err != nil {
		return "the page of static pods"
	}
	return u.Redacted()
}
