package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// counts are the connections that were passed on, by their direction.
type counts struct {
	Outbound atomic.Int64
	Inbound  atomic.Int64
}

// runProxy serves both directions and its state, until the context ends: everything else of the pod has ended
// by then.
func runProxy(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var passed counts
	var all sync.WaitGroup
	for port, count := range map[int]*atomic.Int64{
		outboundPort: &passed.Outbound,
		inboundPort:  &passed.Inbound,
	} {
		listeners, err := listen(ctx, port)
		if err != nil {
			return err
		}
		for _, l := range listeners {
			context.AfterFunc(ctx, func() { l.Close() })
			all.Go(func() { cancel(accept(ctx, log, l, count)) })
		}
	}

	// Its state is served last: who sees it may connect.
	all.Go(func() { cancel(serveState(ctx, &passed)) })
	all.Wait()
	return context.Cause(ctx)
}

// listen listens with IPv4, and with IPv6 where there is any: with one socket for both the kernel does not
// say where an IPv4 connection was to go.
func listen(ctx context.Context, port int) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := new(net.ListenConfig).Listen(ctx, network, fmt.Sprintf(":%d", port))
		switch {
		case err == nil:
			listeners = append(listeners, l)
		case network == "tcp4", !errors.Is(err, syscall.EAFNOSUPPORT):
			return nil, err
		}
	}
	return listeners, nil
}

func accept(ctx context.Context, log *slog.Logger, l net.Listener, count *atomic.Int64) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}

		count.Add(1)
		go func() {
			defer conn.Close()
			if err := pass(ctx, conn.(*net.TCPConn)); err != nil {
				log.Warn("connection not passed on", "from", conn.RemoteAddr().String(), "err", err)
			}
		}()
	}
}

// pass connects to where the connection was to go, and copies both ways until both sides have ended.
func pass(ctx context.Context, from *net.TCPConn) error {
	to, err := originalDestination(from)
	if err != nil {
		return err
	}

	// A connection to the proxy itself would be passed on to itself.
	if here, err := netip.ParseAddrPort(from.LocalAddr().String()); err == nil && here == to {
		return fmt.Errorf("%s is the proxy", to)
	}

	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close()

	var both sync.WaitGroup
	both.Go(func() { copyHalf(conn.(*net.TCPConn), from) })
	both.Go(func() { copyHalf(from, conn.(*net.TCPConn)) })
	both.Wait()
	return nil
}

// copyHalf copies one direction. Where it breaks, the other direction ends, too.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}

// serveState serves /ready, and /state with the counts as JSON.
func serveState(ctx context.Context, passed *counts) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]int64{
			"outbound": passed.Outbound.Load(),
			"inbound":  passed.Inbound.Load(),
		})
	})

	server := &http.Server{
		Addr:              fmt.Sprintf(":%d", statusPort),
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
	}
	context.AfterFunc(ctx, func() { server.Close() })
	return errors.Join(ctx.Err(), server.ListenAndServe())
}
