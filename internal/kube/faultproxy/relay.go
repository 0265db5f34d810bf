package faultproxy

import (
	"context"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/watch"
)

// relay is the events of a watch on their way to the client.
type relay struct {
	*exchange
	codec codec
	to    http.ResponseWriter

	// frames are those that come from the server. The channel is closed when it sends no more.
	frames chan []byte

	// initial are the initial events so far; nil when they are over, or there are none. With early, they are
	// sent after the bookmark that ends them.
	initial [][]byte
	early   bool

	// held are events that later ones overtake, and overtaken by how many they will be.
	held      [][]byte
	overtaken int
}

// holdTime is how long an event is held for others to overtake it.
const holdTime = 50 * time.Millisecond

// relay sends the events of a watch until it ends.
func (x *exchange) relay(ctx context.Context, w http.ResponseWriter, response *http.Response) {
	r := &relay{
		exchange: x,
		codec:    codecOf(response.Header.Get("Content-Type")),
		to:       w,
		frames:   make(chan []byte),
	}
	if response.Request.URL.Query().Get("sendInitialEvents") == "true" {
		r.initial = [][]byte{}
		r.early = x.dice.roll(x.proxy.now().EarlyBookmark)
	}

	ctx, cancel := context.WithCancel(ctx)
	go r.read(ctx, response.Body)

	// The server's side is closed first: the reader waits for it.
	defer func() {
		cancel()
		response.Body.Close()
		for range r.frames {
		}
	}()

	for r.next(ctx, response.Header) {
	}
}

// read reads what the server sends.
func (r *relay) read(ctx context.Context, from io.Reader) {
	defer close(r.frames)
	next := r.codec.reader(from)
	for {
		frame, err := next()
		if err != nil {
			return
		}

		select {
		case r.frames <- frame:
		case <-ctx.Done():
			return
		}
	}
}

// silent sends nothing more until the client goes away. The server does not see that.
func (r *relay) silent(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case _, more := <-r.frames:
			if !more {
				<-ctx.Done()
			}
		}
	}
}

// next sends the next event. It returns false if the watch has ended.
func (r *relay) next(ctx context.Context, header http.Header) bool {
	var release <-chan time.Time
	if len(r.held) > 0 {
		release = time.After(holdTime)
	}

	select {
	case <-ctx.Done():
		return false
	case <-release:
		return r.release()
	case frame, more := <-r.frames:
		if !more {
			return r.release() && false
		}

		e, err := r.codec.decode(frame)
		if err != nil {
			// what is not understood is sent as it is
			return r.send(frame)
		}
		if r.initial == nil {
			return r.pass(ctx, e)
		}
		return r.begin(ctx, header, e)
	}
}

// begin is pass for the initial events, which it remembers.
func (r *relay) begin(ctx context.Context, header http.Header, e event) bool {
	before := r.initial
	r.initial = append(r.initial, e.frame)
	if e.last {
		r.remember(answer{header: header, frames: r.initial, version: e.version})
		r.initial = nil
	}

	switch {
	case !r.early:
		return r.pass(ctx, e)
	case !e.last:
		return true
	}

	r.fault("early end")
	r.held = before
	return r.send(e.frame) && r.release()
}

// pass sends an event, or does it wrong.
func (r *relay) pass(ctx context.Context, e event) bool {
	faults := r.proxy.now()
	if e.kind == watch.Bookmark {
		return r.passBookmark(ctx, faults, e)
	}

	switch {
	case r.dice.roll(faults.Lose):
		r.fault("lose")
		return true
	case r.dice.roll(faults.Silence):
		r.fault("silence")
		return r.silent(ctx)
	case r.dice.roll(faults.Cut):
		r.fault("cut")
		whole := r.codec.bytes(e.frame)
		_, _ = r.to.Write(whole[:len(whole)/2])
		_ = http.NewResponseController(r.to).Flush()
		panic(http.ErrAbortHandler)
	case r.dice.roll(faults.Error):
		r.fault("error")
		return r.made(r.codec.expired()) && false
	case r.dice.roll(faults.Delay):
		r.fault("delay")
		wait(ctx, r.dice.pause(faults.Pause))
	case r.dice.roll(faults.Double):
		r.fault("double")
		first := r.overtake(e.frame)
		return first && r.overtake(e.frame)
	case r.dice.roll(faults.Reorder):
		r.fault("reorder")
		r.held = append(r.held, e.frame)
		r.overtaken = 1 + r.dice.IntN(3)
		return true
	case r.initial == nil && r.dice.roll(faults.EarlyBookmark):
		r.fault("early bookmark")
		return r.made(r.codec.bookmark(e)) && r.overtake(e.frame)
	}

	return r.overtake(e.frame)
}

// passBookmark is pass for a bookmark. One that ends the initial events is lost together with all that
// follows: a watch without it has not begun.
func (r *relay) passBookmark(ctx context.Context, f Faults, e event) bool {
	switch {
	case e.last && r.dice.roll(f.Silence):
		r.fault("no end")
		return r.silent(ctx)
	case !e.last && r.dice.roll(f.LoseBookmark):
		r.fault("lose bookmark")
		return true
	}
	return r.overtake(e.frame)
}

// overtake sends an event before those that are held.
func (r *relay) overtake(frame []byte) bool {
	if !r.send(frame) {
		return false
	}
	if r.overtaken--; r.overtaken > 0 || len(r.held) == 0 {
		return true
	}
	return r.release()
}

// release sends what is held.
func (r *relay) release() bool {
	for _, frame := range r.held {
		if !r.send(frame) {
			return false
		}
	}
	r.held = nil
	return true
}

// made sends a frame that was made here.
func (r *relay) made(frame []byte, err error) bool {
	if err != nil {
		r.proxy.cfg.Log.Error("make an event", "request", r.key, "err", err)
		return true
	}
	return r.send(frame)
}

func (r *relay) send(frame []byte) bool {
	if r.codec.write(r.to, frame) != nil {
		return false
	}
	return http.NewResponseController(r.to).Flush() == nil
}
