package streaming_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// synStream is a SPDY/3 frame that opens a stream, with as many headers as it claims to have.
func synStream(t *testing.T, headers uint32) []byte {
	t.Helper()
	var block bytes.Buffer
	z := zlib.NewWriter(&block)
	if err := binary.Write(z, binary.BigEndian, headers); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}

	frame := []byte{
		// A control frame of version 3, SYN_STREAM.
		0x80, 3, 0, 1,

		// No flags, and the length.
		0, 0, 0, byte(10 + block.Len()),

		// The stream, and that it is associated with none.
		0, 0, 0, 1,
		0, 0, 0, 0,

		// Priority and slot.
		0, 0,
	}

	return append(frame, block.Bytes()...)
}

// A frame must not make the server allocate what it claims to bring (CVE-2026-35469).
func TestSPDYFrameCostsNoMoreThanItBrings(t *testing.T) {
	n := start(t, "crun", idle, nil)
	resp, err := n.server.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: sh("true"), Stdout: true})
	if err != nil {
		t.Fatal(err)
	}

	u, err := url.Parse(resp.Url)
	if err != nil {
		t.Fatal(err)
	}

	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}

	const upgrade = "POST %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n" +
		"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
	if _, err := fmt.Fprintf(conn, upgrade, u.RequestURI()); err != nil {
		t.Fatal(err)
	}

	answers := bufio.NewReader(conn)
	answer, err := http.ReadResponse(answers, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", answer, err)
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := conn.Write(synStream(t, 1<<22)); err != nil {
		t.Fatal(err)
	}

	// until the server gives the connection up
	_, _ = io.Copy(io.Discard, answers)
	runtime.ReadMemStats(&after)
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 32<<20 {
		t.Errorf("one frame of %d bytes cost %d", len(synStream(t, 1<<22)), cost)
	}
}
