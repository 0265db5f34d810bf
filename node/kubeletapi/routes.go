package kubeletapi

import (
	"net/http"

	"github.com/trivet-node/trivet/node/nodelog"
)

// Handler is the whole endpoint, guard included.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.always(mux)
	if s.cfg.Off.Debugging {
		disabled(mux, "Debug endpoints are disabled.",
			"/run/",
			"/exec/",
			"/attach/",
			"/portForward/",
			"/containerLogs/",
			"/runningpods/",
			"/debug/pprof/",
			"/logs/",
		)
	} else {
		s.debugging(mux)
		s.switched(mux)
	}

	guarded := s.cfg.Guard(mux)
	if s.cfg.Count != nil {
		return s.cfg.Count(guarded)
	}

	return guarded
}

// always adds what kubelet serves whatever its settings.
func (s *Server) always(mux *http.ServeMux) {
	s.cfg.Health.Register(mux)
	mux.Handle("GET /pods", handler(s.pods))
	mux.Handle("GET /pods/{$}", handler(s.pods))
	mux.Handle("GET /stats/summary", handler(s.summary))
	mux.Handle("GET /metrics", handler(s.metrics))
	mux.HandleFunc("GET /metrics/slis", s.slis)
	mux.Handle("GET /metrics/{page}", handler(s.metrics))
}

// debugging adds what enableDebuggingHandlers stands for.
func (s *Server) debugging(mux *http.ServeMux) {
	mux.Handle("GET /runningpods/{$}", handler(s.runningPods))
	mux.Handle("GET /configz", handler(s.configz))
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", handler(s.logs))

	for _, method := range []string{"GET", "POST"} {
		mux.Handle(method+" /exec/{namespace}/{pod}/{container}", handler(s.exec))
		mux.Handle(method+" /exec/{namespace}/{pod}/{uid}/{container}", handler(s.exec))
		mux.Handle(method+" /attach/{namespace}/{pod}/{container}", handler(s.attach))
		mux.Handle(method+" /attach/{namespace}/{pod}/{uid}/{container}", handler(s.attach))
		mux.Handle(method+" /portForward/{namespace}/{pod}", handler(s.portForward))
		mux.Handle(method+" /portForward/{namespace}/{pod}/{uid}", handler(s.portForward))
	}

	mux.Handle("POST /run/{namespace}/{pod}/{container}", handler(s.run))
	mux.Handle("POST /run/{namespace}/{pod}/{uid}/{container}", handler(s.run))
}

// switched adds what has a switch of its own: a field of the configuration or a feature gate.
func (s *Server) switched(mux *http.ServeMux) {
	switch {
	case s.cfg.Off.SystemLogs:
		disabled(mux, "logs endpoint is disabled.", "/logs/")
	case s.cfg.LogDir != "":
		mux.Handle("GET /logs/", nodelog.Dir(s.cfg.LogDir))
	}

	if s.cfg.Off.Profiling {
		disabled(mux, "profiling endpoint is disabled.", "/debug/pprof/")
	}
	if s.cfg.Off.DebugFlags {
		disabled(mux, "flags endpoint is disabled.", "/debug/flags/v")
	}

	if s.cfg.CheckpointDir != "" {
		mux.Handle("POST /checkpoint/{namespace}/{pod}/{container}", handler(s.checkpoint))
	}
	if s.cfg.Statusz != nil {
		mux.Handle("/statusz", handler(s.statusz))
	}
	if s.cfg.Flagz != nil {
		mux.Handle("/flagz", handler(s.flagz))
	}
}

// disabled answers 405 for paths that an administrator has switched off.
func disabled(mux *http.ServeMux, text string, paths ...string) {
	for _, path := range paths {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, text, http.StatusMethodNotAllowed)
		})
	}
}
