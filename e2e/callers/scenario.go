package callers

import (
	"context"
	"fmt"
	"path/filepath"
)

// The containers: one has a server, the other asks it.
const (
	server = "web"
	client = "client"
)

// use makes a network, has containers reach each other in it, and takes everything away. What is left of
// containers shows beside what a first one has left, which is the network's.
func (h *host) use(ctx context.Context) error {
	var bare, used lines
	steps := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"look at the host", h.looking(&bare)},
		{"make the network", h.calling("network", h.network)},
		{"start a first container", h.calling("run", server, hostPort)},
		{"remove the first container", h.calling("remove", server)},
		{"look at the network", h.looking(&used)},
		{"start the server", h.calling("run", server, hostPort)},
		{"start the client", h.calling("run", client)},
		{"reach the server", h.reach},
		{"check", h.calling("check", server)},
		{"reach the server after it was checked", h.reach},
		{"start again", h.restart},
		{"reach the server after it was started again", h.reach},
		{"remove the containers", h.calling("remove", server, client)},
		{"look for what containers have left", h.leaving(&used, true)},
		{"remove the network", h.calling("unnetwork", h.network)},
		{"look for what is left", h.leaving(&bare, false)},
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

	from := []string{address, hostAddress + ":" + hostPort}
	if !h.caller.notByLoopback {
		from = append(from, "127.0.0.1:"+hostPort)
	}
	for _, of := range from {
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
