package kubeapi

import (
	"net/http"
)

// gate holds requests back until the node has the identity to make them with.
type gate struct {
	opened chan struct{}
	next   http.RoundTripper // set before opened is closed
}

// open lets all requests through, with the given transport.
func (g *gate) open(next http.RoundTripper) {
	g.next = next
	close(g.opened)
}

// RoundTrip waits as long as the request may.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-g.opened:
		return g.next.RoundTrip(r)
	case <-r.Context().Done():
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, r.Context().Err()
	}
}
