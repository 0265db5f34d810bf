package callers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// lines are what plugins have made on a machine, a line each.
type lines map[string]bool

// look shows links, routes, namespaces that are mounted, files and rules. What host-local keeps of a network
// that has no containers is left out.
const look = `ip -br link | sed -E 's/^([^ @]+).*/link \1/'
	ip route show table all | grep -vE '^(local|broadcast|multicast|anycast|fe80|ff00)' |
		sed 's/^/route /; s/ linkdown//'
	grep ' nsfs ' /proc/self/mounts | sed -E 's/^[^ ]+ ([^ ]+).*/namespace \1/'
	find /run/netns /var/lib/cni /run/cni -type f 2>/dev/null |
		grep -vE '/(lock|last_reserved_ip\.[0-9]+)$' | sed 's/^/file /'
	nft list ruleset | awk '/^table/ {table = $2 " " $3} /^\t(chain|set|map)/ {chain = $1 " " $2}
		{sub(/counter packets [0-9]+ bytes [0-9]+/, "counter"); print "rule", table, chain, $0}'`

// look returns what there is.
func (h *host) look(ctx context.Context) (lines, error) {
	out, err := h.output(ctx, "sh", "-c", look)
	if err != nil {
		return nil, err
	}

	found := lines{}
	for line := range strings.Lines(out) {
		found[strings.Join(strings.Fields(line), " ")] = true
	}
	return found, nil
}

// looking returns a step that keeps what there is.
func (h *host) looking(into *lines) func(ctx context.Context) error {
	return func(ctx context.Context) (err error) {
		*into, err = h.look(ctx)
		return err
	}
}

// leaving returns a step that ends with an error if there is something that was not there before. Rules may
// be those of a network, which stay.
func (h *host) leaving(before *lines, withRules bool) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		now, err := h.look(ctx)
		if err != nil {
			return err
		}

		var left []error
		for _, line := range slices.Sorted(maps.Keys(now)) {
			if !(*before)[line] && (withRules || !strings.HasPrefix(line, "rule ")) {
				left = append(left, errors.New(line))
			}
		}
		return errors.Join(left...)
	}
}
