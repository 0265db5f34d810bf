// Package faultproxy is a proxy between a client of the Kubernetes API and its server, for tests, that does
// wrong what networks, load balancers and servers do wrong: it loses, delays, doubles and reorders events,
// cuts watches off or lets them hang, gives old answers to lists, refuses requests, and loses answers to
// writes. It understands watches in JSON and in protobuf. What goes wrong follows from a seed and from how
// often the same request has come before, so that a run can be repeated as far as the client repeats it.
package faultproxy

import (
	"context"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Config says where requests go.
type Config struct {
	// Server is the API server's URL.
	Server *url.URL

	// Transport reaches the server and authenticates as the client: the client's own certificate ends at the
	// proxy.
	Transport http.RoundTripper

	// Seed is what everything random follows from.
	Seed uint64

	// Log has a line at level debug for each fault.
	Log *slog.Logger
}

// Proxy is the proxy. It is safe for concurrent use.
type Proxy struct {
	cfg   Config
	tally Tally

	// mu guards the rest.
	mu      sync.Mutex
	faults  Faults
	seen    map[string]uint64 // requests by their key
	answers map[string][]answer
}

// New returns a proxy that does nothing wrong until Set is called. It serves nothing by itself.
func New(cfg Config) *Proxy {
	return &Proxy{
		cfg:     cfg,
		seen:    map[string]uint64{},
		answers: map[string][]answer{},
	}
}

// Set says what goes wrong from now on, in watches that are open as well. One that has fallen silent stays
// so.
func (p *Proxy) Set(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// Tally returns what went wrong so far.
func (p *Proxy) Tally() *Tally { return &p.tally }

func (p *Proxy) now() Faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// exchange is one request.
type exchange struct {
	proxy *Proxy
	dice  dice
	key   string // the same for requests of the same object or list
	watch bool
	list  bool
}

// begin says what a request is. Requests of one key get other random numbers each time.
func (p *Proxy) begin(r *http.Request) *exchange {
	query := r.URL.Query()
	watch := query.Get("watch") != "" && query.Get("watch") != "false"
	x := &exchange{
		proxy: p,
		watch: watch,
		list:  r.Method == http.MethodGet && (!watch || query.Get("sendInitialEvents") == "true"),
		key: strings.Join([]string{
			r.Method,
			r.URL.Path,
			query.Get("fieldSelector"),
			query.Get("labelSelector"),
			query.Get("watch"),
			query.Get("sendInitialEvents"),
			r.Header.Get("Accept"),
		}, " "),
	}

	p.mu.Lock()
	count := p.seen[x.key]
	p.seen[x.key]++
	p.mu.Unlock()

	sum := fnv.New64a()
	_, _ = io.WriteString(sum, x.key)
	x.dice = dice{rand.New(rand.NewPCG(p.cfg.Seed, sum.Sum64()+count))}
	return x
}

// fault counts what goes wrong.
func (x *exchange) fault(name string) {
	x.proxy.tally.add(name)
	x.proxy.cfg.Log.Debug("fault", "fault", name, "request", x.key)
}

// ServeHTTP forwards a request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.begin(r)
	faults := p.now()
	if x.refuse(w, r, faults) {
		return
	}

	if x.list && x.dice.roll(faults.OldList) {
		if old, found := x.old(); found {
			x.fault("old list")
			x.repeat(w, r, old)
			return
		}
	}

	x.forward(w, r, faults)
}

// refuse answers, or never does, in place of the server.
func (x *exchange) refuse(w http.ResponseWriter, r *http.Request, f Faults) bool {
	var err *apierrors.StatusError
	switch {
	case x.dice.roll(f.Hang):
		x.fault("hang")
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case x.dice.roll(f.TooMany):
		x.fault("too many")
		w.Header().Set("Retry-After", "1")
		err = apierrors.NewTooManyRequests("a fault", 1)
	case x.dice.roll(f.Internal):
		x.fault("internal")
		err = apierrors.NewGenericServerResponse(
			http.StatusInternalServerError, r.Method, schema.GroupResource{}, "", "a fault", 0, true)
	case x.watch && x.dice.roll(f.Expire):
		x.fault("expire")
		err = apierrors.NewResourceExpired("a fault")
	default:
		return false
	}

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(err.Status().Code))
	_, _ = w.Write(jsonOf(err))
	return true
}

// ask sends a request to the server. The connection to the client ends if that fails.
func (x *exchange) ask(r *http.Request) *http.Response {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme = x.proxy.cfg.Server.Scheme
	out.URL.Host = x.proxy.cfg.Server.Host
	out.Host = out.URL.Host
	out.Header.Del("Connection")
	out.Header.Del("Authorization")

	// A compressed answer cannot be looked into.
	out.Header.Del("Accept-Encoding")

	response, err := x.proxy.cfg.Transport.RoundTrip(out)
	if err != nil {
		x.proxy.cfg.Log.Debug("no answer", "request", x.key, "err", err)
		panic(http.ErrAbortHandler)
	}
	return response
}

// forward has the server answer.
func (x *exchange) forward(w http.ResponseWriter, r *http.Request, f Faults) {
	response := x.ask(r)
	defer response.Body.Close()

	head(w, response)
	if x.watch && response.StatusCode == http.StatusOK {
		x.relay(r.Context(), w, response)
		return
	}

	body, err := io.ReadAll(response.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}

	write := r.Method != http.MethodGet
	if write && x.dice.roll(f.LoseAnswer) {
		x.fault("lose answer")
		panic(http.ErrAbortHandler)
	}
	if x.list && response.StatusCode == http.StatusOK {
		x.remember(answer{header: response.Header, frames: [][]byte{body}})
	}

	if x.dice.roll(f.Slow) {
		x.fault("slow")
		x.slowly(r.Context(), w, body, f.Pause)
		return
	}
	_, _ = w.Write(body)
}

// head is the head of the server's answer.
func head(w http.ResponseWriter, response *http.Response) {
	header := response.Header.Clone()
	header.Del("Content-Length")
	header.Del("Connection")
	maps.Copy(w.Header(), header)
	w.WriteHeader(response.StatusCode)
	_ = http.NewResponseController(w).Flush()
}

// slowParts is in how many parts a slow answer comes.
const slowParts = 8

// slowly writes an answer in parts.
func (x *exchange) slowly(ctx context.Context, w http.ResponseWriter, body []byte, pause time.Duration) {
	size := max(1, len(body)/slowParts)
	for len(body) > 0 {
		part := body[:min(size, len(body))]
		body = body[len(part):]
		if _, err := w.Write(part); err != nil {
			return
		}

		_ = http.NewResponseController(w).Flush()
		wait(ctx, pause/slowParts)
	}
}

// wait waits unless the client goes away.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
