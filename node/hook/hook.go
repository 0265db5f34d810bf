// Package hook runs the lifecycle hooks of containers, postStart and preStop: exec, HTTP GET, sleep
// (https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/). A hook of TCP is accepted by
// the API and does nothing, as documented there.
package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/probe"
)

// userAgent is kubelet's, by which servers tell hooks from probes.
const userAgent = "kube-lifecycle/1.37"

// Target is the running container that a hook belongs to.
type Target struct {
	ID   string
	Spec *v1.Container
	IP   string // of the pod
}

// Run runs a hook to its end, or until ctx ends. A nil hook is a success.
func Run(ctx context.Context, exec probe.Exec, h *v1.LifecycleHandler, t Target) error {
	switch {
	case h == nil:
		return nil
	case h.Exec != nil:
		return run(ctx, exec, h.Exec.Command, t)
	case h.HTTPGet != nil:
		return get(ctx, h.HTTPGet, t)
	case h.Sleep != nil:
		return retry.Sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
	}
	return nil
}

// run executes a command in the container. An exit code other than 0 is an error.
func run(ctx context.Context, exec probe.Exec, command []string, t Target) error {
	out, code, err := exec.ExecSync(ctx, t.ID, command, 0)
	text := strings.Join(command, " ")
	if err != nil {
		return fmt.Errorf("exec %q: %w", text, err)
	}
	if code != 0 {
		return fmt.Errorf("command '%s' exited with %d: %s",
			text, code, strings.ToValidUTF8(string(out), "?"))
	}
	return nil
}

// get requests a URL. When a hook of scheme HTTPS reaches a server that does not speak TLS, it falls back to
// HTTP: clusters rely on that since hooks used to ignore the scheme.
func get(ctx context.Context, a *v1.HTTPGetAction, t Target) error {
	_, err := probe.HTTPGet(ctx, a, t.Spec, t.IP, userAgent)
	if a.Scheme == v1.URISchemeHTTPS && speaksHTTP(err) {
		plain := a.DeepCopy()
		plain.Scheme = v1.URISchemeHTTP
		_, err = probe.HTTPGet(ctx, plain, t.Spec, t.IP, userAgent)
	}
	if errors.Is(err, probe.ErrRedirected) {
		return nil
	}
	return err
}

// speaksHTTP reports whether a request over TLS failed because the server does not speak TLS.
func speaksHTTP(err error) bool {
	_, garbled := errors.AsType[tls.RecordHeaderError](err)
	return garbled || errors.Is(err, http.ErrSchemeMismatch)
}
