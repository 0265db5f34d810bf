package main

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// ingress passes requests for one host on to a URL; for every other one there is no page.
func ingress(host, target string) (http.Handler, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}

	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = r.Host
		}
		if name != host {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}
