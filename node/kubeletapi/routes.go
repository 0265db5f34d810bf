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
		disabled(mux, "Debug endpoints are disabled.", "/run/", "/exec/", "/attach/", "/portForward/",
			"/containerLogs/", "/runningpods/", "/debug/pprof/", "/logs/")
	} else {
		s.debugging(mux)
		s.switched(mux)
	}
	return s.cfg.Guard(mux)
}

// always adds what kubelet serves whatever its settings.
func (s *Server) always(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /healthz/{check}", s.health)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /metrics", s.metrics(""))
	mux.HandleFunc("GET /metrics/{set}", func(w http.ResponseWriter, r *http.Request) {
		s.metrics(r.PathValue("set"))(w, r)
	})
}

// debugging adds what enableDebuggingHandlers stands for.
func (s *Server) debugging(mux *http.ServeMux) {
	mux.HandleFunc("GET /runningpods/{$}", s.runningPods)
	mux.HandleFunc("GET /configz", s.configz)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)

	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.exec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.attach)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}

	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
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
		mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)
	}
	if s.cfg.Statusz != nil {
		mux.HandleFunc("/statusz", s.statusz)
	}
	if s.cfg.Flagz != nil {
		mux.HandleFunc("/flagz", s.flagz)
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
