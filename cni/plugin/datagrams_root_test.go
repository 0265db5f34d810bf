package plugin_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
)

// serveUDP answers each datagram with itself, on all addresses of a namespace.
func (h *host) serveUDP(netns string, port int) {
	h.t.Helper()
	h.in(netns, func() error {
		conn, err := net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}

		h.t.Cleanup(func() { _ = conn.Close() })
		go func() {
			buffer := make([]byte, 100)
			for {
				n, from, err := conn.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(buffer[:n], from)
			}
		}()

		return nil
	})
}

// awaitWay waits until a namespace reaches the host, which is not what is tested.
func (h *host) awaitWay(from, to string) {
	h.t.Helper()
	h.serve(h.netns, 7)
	began := time.Now()
	_, err := dialWithin(from, to, dropped)
	for err != nil && time.Since(began) < time.Minute {
		_, err = dialWithin(from, to, dropped)
	}
	if err != nil {
		h.t.Fatalf("the host is not reached itself: %v", err)
	}
}

// askUDP sends a datagram from a namespace, and waits for the answer.
func (h *host) askUDP(netns, to string, limit time.Duration) error {
	return namespace.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()

		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err := io.WriteString(c, "ping"); err != nil {
			return err
		}

		answer := make([]byte, 100)
		n, err := c.Read(answer)
		if err == nil && string(answer[:n]) != "ping" {
			err = fmt.Errorf("the answer is %q", answer[:n])
		}
		return err
	}, netns)
}

func TestPortmapPublishesDatagramsAndIPv6(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t, "")
			beyond := h.uplink("192.0.2.1/24")
			h.ip(beyond, "addr add 192.0.2.2/24 dev up1")
			h.ip(h.netns, "addr add 2001:db8::1/64 dev up0 nodad")
			h.ip(beyond, "addr add 2001:db8::2/64 dev up1 nodad")
			h.awaitWay(beyond, "[2001:db8::1]:7")
			c := h.newChain("pod", h.ptp(""), `"type":"portmap","backend":"`+backend+`","runtimeConfig":{
				"portMappings":[{"hostPort":8080,"containerPort":80},
				{"hostPort":5353,"containerPort":53,"protocol":"udp"}]}`)

			h.serve(c.netns, 80)
			h.serveUDP(c.netns, 53)
			if _, err := h.dial(beyond, "[2001:db8::1]:8080"); err != nil {
				t.Error("by IPv6:", err)
			}
			for _, to := range []struct{ from, address string }{
				{beyond, "192.0.2.1:5353"},
				{beyond, "[2001:db8::1]:5353"},
				{h.netns, "192.0.2.1:5353"},
				{h.netns, "127.0.0.1:5353"},
				{c.netns, "192.0.2.1:5353"},
			} {
				if err := h.askUDP(to.from, to.address, time.Minute); err != nil {
					t.Errorf("datagrams to %s: %v", to.address, err)
				}
			}

			c.del()
			if err := h.askUDP(beyond, "192.0.2.1:5353", dropped); err == nil {
				t.Error("the host port outlives its pod")
			}
		})
	}
}
