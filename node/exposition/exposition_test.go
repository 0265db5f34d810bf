package exposition

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/trivet-node/trivet/internal/retry"
)

func TestTextIsOfTheFormat(t *testing.T) {
	var out strings.Builder
	w := NewWriter(&out)
	at := time.UnixMilli(1_700_000_000_123)
	w.Family("nothing", Gauge, "No samples, no heading.")
	w.Family("a_total", Counter, "What it is.")
	w.Uint(7, time.Time{})
	w.Float(math.Inf(1), time.Time{}, "", Pairs("x", "y"))
	w.Uint(8, at, Pairs("a", "x", "b", "with \"quotes\", \\ and\nlines"), "", `c="d"`)
	w.Family("b_seconds", Gauge, "A time.")
	for _, d := range []time.Duration{0, time.Second, 1500 * time.Millisecond, 1, 10*time.Second + 20} {
		w.Seconds(d, at)
	}

	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	const want = `# HELP a_total What it is.
# TYPE a_total counter
a_total 7
a_total{x="y"} +Inf
a_total{a="x",b="with \"quotes\", \\ and\nlines",c="d"} 8 1700000000123
# HELP b_seconds A time.
# TYPE b_seconds gauge
b_seconds 0 1700000000123
b_seconds 1 1700000000123
b_seconds 1.5 1700000000123
b_seconds 0.000000001 1700000000123
b_seconds 10.00000002 1700000000123
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

// Names of containers and images come from others.
func FuzzLabels(f *testing.F) {
	f.Add("plain")
	f.Add("a\"b\\c\nd\x00\xff")
	f.Fuzz(func(t *testing.T, value string) {
		var out bytes.Buffer
		w := NewWriter(&out)
		w.Family("m", Gauge, "H.")
		w.Uint(1, time.Time{}, Pairs("l", value))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}

		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(&out)
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}

		got := families["m"].GetMetric()[0].GetLabel()[0].GetValue()
		if want := strings.ToValidUTF8(value, "\uFFFD"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestFirstErrorOfTheWriterStays(t *testing.T) {
	broken := errors.New("broken")
	r, pipe := io.Pipe()
	r.CloseWithError(broken)
	w := NewWriter(pipe)
	w.Family("m", Gauge, "H.")
	for range 10_000 {
		w.Uint(1, time.Time{})
	}
	if err := w.Flush(); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// get asks a page and returns its plain text.
func get(t *testing.T, p http.Handler, encoding string) (string, *http.Response) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}

	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)

	body := io.Reader(w.Result().Body)
	if w.Header().Get("Content-Encoding") == "gzip" {
		plain, err := gzip.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}

		body = plain
	}

	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}

	return string(text), w.Result()
}

func TestPageIsCompressedForThoseWhoWantIt(t *testing.T) {
	p := NewPage(func(_ context.Context, w *Writer) (time.Time, error) {
		w.Family("m", Gauge, "H.")
		w.Uint(1, time.Time{})
		return time.Time{}, nil
	})

	for accepted, want := range map[string]string{
		"":                    "",
		"identity":            "",
		"gzip":                "gzip",
		"deflate, gzip;q=0.5": "gzip",
		"GZIP":                "gzip",
		"*":                   "gzip",
		"gzip;q=0":            "",
		"gzip; q=0.0":         "",
		"br":                  "",
	} {
		text, resp := get(t, p, accepted)
		if got := resp.Header.Get("Content-Encoding"); got != want || !strings.HasSuffix(text, "m 1\n") {
			t.Errorf("%q: encoding %q, text %q", accepted, got, text)
		}
		if got := resp.Header.Get("Content-Type"); got != ContentType {
			t.Errorf("type %s", got)
		}
	}
}

func TestPageIsWrittenOnceForAllWhoAskWhileItIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written atomic.Int32
		p := NewPage(func(_ context.Context, w *Writer) (time.Time, error) {
			written.Add(1)
			w.Family("m", Gauge, "H.")
			w.Uint(1, time.Time{})
			return time.Now().Add(time.Second), nil
		})

		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { get(t, p, "gzip") })
		}

		group.Wait()
		if n := written.Load(); n != 1 {
			t.Errorf("written %d times", n)
		}

		time.Sleep(time.Second)
		get(t, p, "")
		if n := written.Load(); n != 2 {
			t.Errorf("written %d times after it was old", n)
		}
	})
}

func TestPageThatCannotBeWrittenIsAnErrorAndTriedAgain(t *testing.T) {
	fails := true
	p := NewPage(func(_ context.Context, w *Writer) (time.Time, error) {
		if fails {
			return time.Time{}, errors.New("no figures")
		}

		return time.Time{}, nil
	})
	if text, resp := get(t, p, "gzip"); resp.StatusCode != 500 || text != "no figures\n" {
		t.Errorf("%d %q", resp.StatusCode, text)
	}

	fails = false
	if _, resp := get(t, p, "gzip"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// A hundred scrapers that do not read their answers hold one page, not a hundred.
func TestClientsThatDoNotReadHoldOnePageTogether(t *testing.T) {
	const clients, samples = 100, 50_000
	p := NewPage(func(_ context.Context, w *Writer) (time.Time, error) {
		w.Family("m", Gauge, "H.")
		random := rand.New(rand.NewPCG(1, 2))
		for range samples {
			w.Uint(random.Uint64(), time.Time{}, Labels(`l="`+strconv.FormatUint(random.Uint64(), 36)+`"`))
		}

		return time.Now().Add(time.Hour), nil
	})

	text, err := p.compressed(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		p.ServeHTTP(w, r)
	}))
	defer server.Close()

	before := heap()

	for i := range clients {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		// Half of them want it plain.
		encoding := []string{"gzip", "identity"}[i%2]
		request := "GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: " + encoding + "\r\n\r\n"
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	for range retry.Every(ctx, time.Millisecond) {
		if asked.Load() == clients {
			break
		}
	}

	if grown := heap() - before; grown > int64(clients*len(text)/4) {
		t.Errorf("a page of %d bytes, and %d more for %d clients", len(text), grown, clients)
	}
}

// heap is the size of what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
