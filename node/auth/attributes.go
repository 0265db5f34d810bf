package auth

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// prefixes are the paths with a subresource of nodes of their own. The first entry that fits counts.
// https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
var prefixes = []struct {
	path         string
	subresources []string // any of them suffices
}{
	{"/stats", []string{"stats"}},
	{"/metrics", []string{"metrics"}},
	{"/logs", []string{"log"}},
	{"/checkpoint", []string{"checkpoint"}},
	{"/statusz", []string{"statusz"}},
	{"/flagz", []string{"configz"}},
	{"/pods", []string{"pods", "proxy"}},
	{"/runningpods", []string{"pods", "proxy"}},
	{"/healthz", []string{"healthz", "proxy"}},
	{"/configz", []string{"configz", "proxy"}},
}

// verbs of request methods; other methods have no verb and are refused by any rule but "*".
var verbs = map[string]string{
	http.MethodGet:    "get",
	http.MethodHead:   "get",
	http.MethodPost:   "create",
	http.MethodPut:    "update",
	http.MethodPatch:  "patch",
	http.MethodDelete: "delete",
}

// commands run something in a container. A WebSocket opens them with GET, yet reading rights must not suffice
// for them: they always need the right to create, which is stricter than kubelet.
var commands = []string{"/exec", "/attach", "/run", "/portForward", "/cri"}

// attributes are the subresources of nodes, any of which must be allowed, and the verb that a request stands
// for.
func attributes(r *http.Request) (subresources []string, verb string) {
	p := path.Clean("/" + r.URL.Path)
	verb = verbs[r.Method]
	for _, c := range commands {
		if below(p, c) {
			return []string{"proxy"}, "create"
		}
	}

	for _, s := range prefixes {
		if below(p, s.path) {
			return s.subresources, verb
		}
	}

	return []string{"proxy"}, verb
}

// clean reports whether everybody reads the path in the same way: no dots, no double or encoded slashes.
// Otherwise one could be judged by one path and served another.
func clean(u *url.URL) bool {
	return u.RawPath == "" && path.Clean("/"+u.Path) == "/"+strings.Trim(u.Path, "/")
}

func below(p, prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }
