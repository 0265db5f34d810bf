package plugin_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
)

// The limits of the tests: 1 MB/s with 100 KB at once for what a pod receives, and twice that for what it
// sends.
const (
	ingressRate = 1_000_000
	limits      = `"ingressRate":8000000,"ingressBurst":800000,"egressRate":16000000,"egressBurst":1600000`
)

// limited are the ways to limit a pod.
var limited = map[string]func(h *host) []string{
	"chained": func(h *host) []string {
		return []string{h.bridgePlugin(""), `"type":"bandwidth",` + limits}
	},
	"in one entry": func(h *host) []string {
		main := strings.Replace(h.ofNetd(), `"lazyUnlink":true,`, "", 1)
		return []string{main + `,"runtimeConfig":{"bandwidth":{` + limits + `}}`}
	},
}

func TestBandwidthSetsBuckets(t *testing.T) {
	for name, plugins := range limited {
		t.Run(name, func(t *testing.T) { checkBuckets(t, plugins) })
	}
}

func checkBuckets(t *testing.T, plugins func(h *host) []string) {
	h := newHost(t, "")
	c := h.newChain("pod", plugins(h)...)
	if err := c.check(); err != nil {
		t.Error(err)
	}

	disciplines := h.program(h.netns, "tc", "iproute2", "qdisc show")
	for _, want := range []string{"rate 8Mbit burst", "rate 16Mbit burst"} {
		if !strings.Contains(disciplines, want) {
			t.Errorf("%s is not in %s", want, disciplines)
		}
	}

	c.del()
	if left := h.remains(); left != "" {
		t.Error(left)
	}
}

// What gets through in a bounded time: three times what the limit lets through and what waits in buffers, and
// more than that without one.
func TestALimitedPodIsSlower(t *testing.T) {
	for name, plugins := range limited {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			free := h.newChain("free", h.ofNetd())
			slow := h.newChain("slow", plugins(h)...)
			gateway := netip.MustParseAddr("10.88.0.1")

			for direction, c := range map[string]struct {
				from, to    string
				address     netip.Addr
				most, least float64
			}{
				"received":      {h.netns, slow.netns, slow.address(false), 3 * ingressRate, 0},
				"sent":          {slow.netns, h.netns, gateway, 3 * 2 * ingressRate, 0},
				"free received": {h.netns, free.netns, free.address(false), 0, 3 * 2 * ingressRate},
				"free sent":     {free.netns, h.netns, gateway, 0, 3 * 2 * ingressRate},
			} {
				bytes, seconds := h.flow(c.from, c.to, c.address)
				if c.most > 0 && bytes > c.most*seconds+1<<20 || bytes < c.least*seconds || bytes == 0 {
					t.Errorf("%s: %.0f bytes in %.1f s", direction, bytes, seconds)
				}
			}

			slow.del()
			free.del()
		})
	}
}

// flow sends as fast as it can for a second from one namespace to another, where an address is, and returns
// how many bytes have come in how many seconds.
func (h *host) flow(from, to string, address netip.Addr) (bytes, seconds float64) {
	h.t.Helper()
	var listener net.Listener
	h.in(to, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		return err
	})
	defer func() { _ = listener.Close() }()

	const patience = time.Minute
	_ = listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	sent := make(chan error, 1)
	go func() {
		sent <- namespace.Do(func() error {
			c, err := net.DialTimeout("tcp", listener.Addr().String(), patience)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()

			// It ends when the other one has had enough.
			_ = c.SetDeadline(time.Now().Add(patience))
			buffer := make([]byte, 64<<10)
			for err == nil {
				_, err = c.Write(buffer)
			}
			return nil
		}, from)
	}()

	c, err := listener.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	began := time.Now()
	_ = c.SetDeadline(began.Add(time.Second))
	n, _ := io.Copy(io.Discard, c)
	seconds = time.Since(began).Seconds()
	_ = c.Close()
	if err := <-sent; err != nil {
		h.t.Error(err)
	}
	return float64(n), seconds
}
