// Package hook runs the lifecycle hooks of containers (postStart, preStop): exec, HTTP GET, sleep. TCP is
// accepted by the API but does nothing, as documented there.
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

	"github.com/trivet-node/trivet/node/probe"
)

// Target is the running container that a hook belongs to.
type Target struct {
	ID   string
	Spec *v1.Container
	IP   string // of the pod
}

// Run runs the hook to its end, or until ctx ends.
func Run(ctx context.Context, exec probe.Exec, h *v1.LifecycleHandler, t Target) error {
	switch {
	case h == nil:
		return nil
	case h.Exec != nil:
		out, code, err := exec.ExecSync(ctx, t.ID, h.Exec.Command, 0)
		if err != nil {
			return fmt.Errorf("exec %q: %w", strings.Join(h.Exec.Command, " "), err)
		}

		if code != 0 {
			return fmt.Errorf("command '%s' exited with %d: %s",
				strings.Join(h.Exec.Command, " "), code, strings.ToValidUTF8(string(out), "?"))
		}

		return nil

	case h.HTTPGet != nil:
		return get(ctx, h.HTTPGet, t)
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()

		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	return nil
}

// get falls back to plain HTTP when a hook of scheme HTTPS talks to a server that does not speak TLS:
// clusters rely on it since hooks used to ignore the scheme.
func get(ctx context.Context, a *v1.HTTPGetAction, t Target) error {
	_, err := probe.HTTPGet(ctx, a, t.Spec, t.IP, "kube-lifecycle/1.37")
	if a.Scheme == v1.URISchemeHTTPS && err != nil && plainServer(err) {
		plain := a.DeepCopy()
		plain.Scheme = v1.URISchemeHTTP
		_, err = probe.HTTPGet(ctx, plain, t.Spec, t.IP, "kube-lifecycle/1.37")
	}
	if errors.Is(err, probe.ErrRedirected) {
		return nil
	}
	return err
}

func plainServer(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	return errors.Is(err, http.ErrSchemeMismatch) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
