package importer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/cri/importer"
)

// pipes is a listener whose connections are in memory, so that their deadlines pass in no time.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// request begins a request on a new connection.
func (p pipes) request(t *testing.T, first, body string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	p.accepted <- server
	const header = "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	if _, err := fmt.Fprintf(client, "%s HTTP/1.1\r\n%s%s", first, header, body); err != nil {
		t.Fatal(err)
	}
	return client
}

// answerOn returns the error that an answer has.
func answerOn(t *testing.T, c net.Conn) string {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()

	var answer struct{ Error string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}

	return answer.Error
}

// inMemory runs a Server in a bubble of testing/synctest.
func inMemory(t *testing.T, s *store, test func(p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		s.reading = make(chan struct{})
		p := pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- importer.New(s, slog.New(slog.DiscardHandler)).Run(ctx, p) }()

		test(p)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

const chunk = "b\r\n" + prefix + "\r\n"

func TestClientThatStallsIsGivenUp(t *testing.T) {
	inMemory(t, &store{}, func(p pipes) {
		c := p.request(t, "POST /v1/images", chunk)
		defer c.Close()
		if got := answerOn(t, c); !strings.Contains(got, "sent nothing for 2m0s") {
			t.Errorf("answer %q", got)
		}
	})
}

func TestOnlyClientsThatSendKeepOthersWaiting(t *testing.T) {
	inMemory(t, &store{}, func(p pipes) {
		for range 10 {
			idle := p.request(t, "POST /v1/images", "")
			defer idle.Close()
		}

		c := p.request(t, "POST /v1/images", chunk+"1\r\na\r\n0\r\n\r\n")
		defer c.Close()
		if got := answerOn(t, c); got != "" {
			t.Errorf("answer %q", got)
		}
	})
}

func TestClientThatTakesNothingIsGivenUp(t *testing.T) {
	inMemory(t, &store{}, func(p pipes) {
		c := p.request(t, "GET /v1/images?name=a", "0\r\n\r\n")
		defer c.Close()

		time.Sleep(3 * time.Minute)
		if data, err := io.ReadAll(c); err == nil && strings.HasSuffix(string(data), "0\r\n\r\n") {
			t.Errorf("the archive is whole: %q", data)
		}
	})
}
