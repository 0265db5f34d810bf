package ociruntime

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Handler is what a RuntimeClass names: an OCI runtime and how it is used.
type Handler struct {
	Runtime Runtime

	// AllowedAnnotations are patterns (path.Match) of the annotations of pods and containers that the
	// runtime may see.
	AllowedAnnotations []string

	// NoUsers is why pods of this handler cannot have user namespaces; nil if they can.
	NoUsers error
}

// Handlers are all configured handlers by name. The empty name is the default one.
type Handlers map[string]Handler

// Find returns the handler of that name. The error names those that there are.
func (h Handlers) Find(name string) (Handler, error) {
	found, ok := h[name]
	if !ok {
		known := strings.Join(h.Names(), ", ")
		return found, fmt.Errorf("no runtime handler %q is configured (there are: %s)", name, known)
	}
	return found, nil
}

// Names returns the names of all handlers in alphabetical order.
func (h Handlers) Names() []string { return slices.Sorted(maps.Keys(h)) }
