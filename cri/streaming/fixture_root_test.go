package streaming_test

import (
	"context"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/streaming"
)

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m)) }

// node is a monitor, a streaming server, and one container named "c".
type node struct {
	*monitortest.Env
	client *monitor.Client
	server *streaming.Server
	netns  string
}

func start(t *testing.T, runtime string, args []string, change func(*specs.Spec, *monitor.Container)) *node {
	t.Helper()
	n := &node{Env: monitortest.New(t)}
	var err error
	if n.client, err = monitor.Connect(t.Context(), n.Config); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { n.client.Close() })
	c := n.Container(t, "c", n.Runtime(t, runtime), args, change)
	if _, err := n.client.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := n.client.Delete(context.WithoutCancel(t.Context()), "c"); err != nil {
			t.Error(err)
		}
	})
	if err := n.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}

	n.server, err = streaming.New(streaming.Config{
		Addr:       "127.0.0.1:0",
		Processes:  n.client,
		Containers: n,
		Sandboxes:  n,
	})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return n
}

// Process is that of all containers.
func (n *node) Process(context.Context, string) (specs.Process, error) {
	return specs.Process{Cwd: "/", Env: []string{"PATH=/bin"}}, nil
}

// NetnsOf is the same for all pods.
func (n *node) NetnsOf(string) (string, error) { return n.netns, nil }

var idle = []string{"/bin/sleep", "1000"}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func runtimes(t *testing.T, f func(t *testing.T, runtime string)) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}
