package faultproxy

import (
	"maps"
	"net/http"
)

// maxAnswers is how many answers of a list are kept.
const maxAnswers = 8

// answer is an answer to a list: its body or, of a watch that begins with a list, its initial events and the
// bookmark after them, from whose version the watch goes on.
type answer struct {
	header  http.Header
	frames  [][]byte
	version string
}

// remember keeps an answer.
func (x *exchange) remember(a answer) {
	p := x.proxy
	p.mu.Lock()
	defer p.mu.Unlock()

	kept := append(p.answers[x.key], a)
	p.answers[x.key] = kept[max(0, len(kept)-maxAnswers):]
}

// old returns one of the answers that are kept.
func (x *exchange) old() (answer, bool) {
	p := x.proxy
	p.mu.Lock()
	defer p.mu.Unlock()

	kept := p.answers[x.key]
	if len(kept) == 0 {
		return answer{}, false
	}
	return kept[x.dice.IntN(len(kept))], true
}

// repeat gives an old answer, as a server that lags behind does: a watch goes on from there.
func (x *exchange) repeat(w http.ResponseWriter, r *http.Request, old answer) {
	if !x.watch {
		maps.Copy(w.Header(), old.header)
		_, _ = w.Write(old.frames[0])
		return
	}

	later := r.Clone(r.Context())
	query := later.URL.Query()
	query.Del("sendInitialEvents")
	query.Del("resourceVersionMatch")
	query.Set("resourceVersion", old.version)
	later.URL.RawQuery = query.Encode()

	response := x.ask(later)
	defer response.Body.Close()

	head(w, response)
	if response.StatusCode != http.StatusOK {
		return
	}

	codec := codecOf(response.Header.Get("Content-Type"))
	for _, frame := range old.frames {
		if codec.write(w, frame) != nil {
			return
		}
	}

	_ = http.NewResponseController(w).Flush()
	x.relay(r.Context(), w, response)
}
