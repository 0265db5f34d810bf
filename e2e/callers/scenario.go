package callers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// The containers: one has a server, the other asks it.
const (
	server = "web"
	client = "client"
)

// use makes a network, has containers reach each other in it, and takes everything away.
func (h *host) use(ctx context.Context) error {
	before, err := h.look(ctx)
	if err != nil {
		return err
	}

	steps := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"make the network", h.calling("network", h.network)},
		{"start the server", h.calling("run", server, hostPort)},
		{"start the client", h.calling("run", client)},
		{"reach the server", h.reach},
		{"check", h.calling("check", server)},
		{"reach the server after it was checked", h.reach},
		{"start again", h.restart},
		{"reach the server after it was started again", h.reach},
		{"remove the containers", h.calling("remove", server, client)},
		{"look for what is left of containers", func(ctx context.Context) error { return h.compare(ctx, before, true) }},
		{"remove the network", h.calling("unnetwork", h.network)},
		{"look for what is left", func(ctx context.Context) error { return h.compare(ctx, before, false) }},
	}

	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// calling returns a step that is a function of the script.
func (h *host) calling(function string, arguments ...string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := h.call(ctx, function, arguments...)
		return err
	}
}

// reach has the client and the host ask the server.
func (h *host) reach(ctx context.Context) error {
	address, err := h.address(ctx, server)
	if err != nil {
		return err
	}

	// It may not listen yet.
	page := "http://" + address + "/hostname"
	err = h.eventually(ctx, func(ctx context.Context) error {
		return isServer(h.call(ctx, "inside", client, "wget", "-q", "-O", "-", page))
	})
	if err != nil {
		return err
	}
	if _, err := h.call(ctx, "inside", client, "ping", "-c", "1", "-w", "5", address); err != nil {
		return err
	}

	for _, of := range []string{address, "127.0.0.1:" + hostPort, hostAddress + ":" + hostPort} {
		const seconds = "10"
		err := isServer(h.output(ctx,
			"timeout", seconds, "busybox", "wget", "-q", "-O", "-", "http://"+of+"/hostname"))
		if err != nil {
			return fmt.Errorf("%s from the host: %w", of, err)
		}
	}

	return nil
}

// isServer returns an error unless the server has answered.
func isServer(answer string, err error) error {
	if err == nil && answer != server {
		return fmt.Errorf("the answer is %q, want %q", answer, server)
	}
	return err
}

// restart starts the server again, or the daemon of the caller.
func (h *host) restart(ctx context.Context) error {
	if !h.caller.upgraded {
		return h.calling("restart", server, hostPort)(ctx)
	}
	if err := h.machine.Kill(filepath.Base(h.caller.daemon[0])); err != nil {
		return err
	}
	return h.startDaemon(ctx)
}

// look returns what there is on the machine that plugins make, a line each.
func (h *host) look(ctx context.Context) (map[string]bool, error) {
	const script = `ip -br link | sed -E 's/^([^ @]+).*/link \1/'
		ip route show table all | grep -vE '^(local|broadcast|multicast|anycast|fe80|ff00)' | sed 's/^/route /'
		grep -c ' nsfs ' /proc/self/mounts | sed 's/^/namespaces that are mounted: /'
		find /run/netns /var/lib/cni /run/cni -type f 2>/dev/null |
			grep -vE '/(lock|last_reserved_ip\.[0-9]+)$' | sed 's/^/file /'
		nft list ruleset | awk '/^table/ {table = $2 " " $3} /^\tchain|^\tset|^\tmap/ {chain = $1 " " $2}
			{sub(/counter packets [0-9]+ bytes [0-9]+/, "counter"); print "rule", table, chain, $0}'`
	out, err := h.output(ctx, "sh", "-c", script)
	if err != nil {
		return nil, err
	}

	lines := map[string]bool{}
	for line := range strings.Lines(out) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	return lines, nil
}

// compare returns an error if there is something that was not there before, beside what belongs to the
// network.
func (h *host) compare(ctx context.Context, before map[string]bool, hasNetwork bool) error {
	after, err := h.look(ctx)
	if err != nil {
		return err
	}

	var left []error
	for line := range after {
		if !before[line] {
			left = append(left, errors.New(line))
		}
	}
	return errors.Join(left...)
}
