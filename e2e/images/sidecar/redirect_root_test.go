package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestConnectionIsLedToTheProxyWhichSeesWhereItWasToGo(t *testing.T) {
	testenv.Program(t, "nft", "nftables")
	netns := testenv.Netns(t)
	err := namespace.Do(func() error { return connectThroughRules(t.Context()) }, netns)
	if err != nil {
		t.Fatal(err)
	}
}

// connectThroughRules connects to addresses that nobody has, in a pod's network namespace.
func connectThroughRules(ctx context.Context) error {
	for _, command := range []string{
		"ip link set lo up",
		"ip link add pod0 type veth peer name node0",
		"ip link set pod0 up",
		"ip link set node0 up",
		"ip address add 192.0.2.2/24 dev pod0",
		"ip address add 2001:db8::2/64 dev pod0 nodad",
	} {
		words := strings.Fields(command)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}

	// The second time is that of an init container that runs again.
	for range 2 {
		if err := redirect(ctx, "8080,8081"); err != nil {
			return err
		}
	}

	listeners, err := listen(ctx, outboundPort)
	if err != nil {
		return err
	}

	for i, to := range []string{"192.0.2.1:80", "[2001:db8::1]:443"} {
		defer listeners[i].Close()
		if err := connect(ctx, listeners[i], netip.MustParseAddrPort(to)); err != nil {
			return err
		}
	}
	return nil
}

func connect(ctx context.Context, l net.Listener, to netip.AddrPort) error {
	client, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer client.Close()

	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()

	got, err := originalDestination(conn.(*net.TCPConn))
	if err == nil && got != to {
		err = fmt.Errorf("the proxy sees a connection to %s, want %s", got, to)
	}
	return err
}
