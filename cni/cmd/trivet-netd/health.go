package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/internal/program"
)

// serveHealth answers /healthz and /readyz at address until stop is called. For the address "" it serves
// nothing.
func serveHealth(address string, report func() netd.Report, log *slog.Logger) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}

	// An address that is taken is an error of the start, not of the first probe.
	listener, err := net.Listen("tcp", address)
	if err != nil {
		const hint = "another trivet-netd may be running; stop it, or choose another --healthz-address"
		return nil, &program.CantRunError{What: "health address: " + err.Error(), Do: hint}
	}

	isAlive := func(r netd.Report) bool { return r.Alive(time.Now()) }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(report, isAlive))
	mux.HandleFunc("GET /readyz", answer(report, netd.Report.Ready))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	ended := make(chan struct{})
	go func() {
		defer close(ended)

		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("health endpoint ended", "err", err)
		}
	}()

	return func() {
		_ = server.Close()
		<-ended
	}, nil
}

// answer writes the report, with the status 200 when it is good, else 503.
func answer(report func() netd.Report, good func(netd.Report) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		r := report()
		// Writing to a buffer does not fail.
		var body bytes.Buffer
		_, _ = r.WriteTo(&body)

		if !good(r) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(body.Bytes())
	}
}
