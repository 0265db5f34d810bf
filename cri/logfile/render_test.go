package logfile_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/logfile"
)

// at is the time of all lines, and prefix how they begin.
var at = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

const prefix = "2026-01-02T03:04:05.000000006Z stdout "

func TestOutputBecomesLogLines(t *testing.T) {
	long := strings.Repeat("x", logfile.MaxLine)
	for _, c := range []struct {
		name, data, want string
		consumed         int
	}{
		{"nothing", "", "", 0},
		{"lines", "a\n\nb\n", prefix + "F a\n" + prefix + "F \n" + prefix + "F b\n", 5},
		{"an unfinished line alone is partial", "ab", prefix + "P ab\n", 2},
		{"an unfinished line after others waits", "a\nb", prefix + "F a\n", 2},

		// The longest line, and one that is longer.
		{
			"a line of the greatest length is whole",
			long + "\n",
			prefix + "F " + long + "\n",
			logfile.MaxLine + 1,
		},
		{
			"a longer one is split",
			long + "y\n",
			prefix + "P " + long + "\n" + prefix + "F y\n",
			logfile.MaxLine + 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n := logfile.Render(nil, []byte(c.data), at, "stdout", 1<<20)
			if string(got) != c.want || n != c.consumed {
				t.Errorf("consumed %d, want %d; got %q", n, c.consumed, got)
			}
		})
	}
}

// plain returns the output that log lines stand for.
func plain(t *testing.T, log []byte) []byte {
	t.Helper()
	var out []byte
	for line := range bytes.Lines(log) {
		rest, ok := bytes.CutPrefix(line, []byte(prefix))
		if !ok || len(rest) < 3 || rest[1] != ' ' || len(rest) > logfile.MaxLine+3 {
			t.Fatalf("malformed line %q", line)
		}

		switch content := rest[2:]; rest[0] {
		case 'F':
			out = append(out, content...)
		case 'P':
			out = append(out, content[:len(content)-1]...)
		default:
			t.Fatalf("malformed line %q", line)
		}
	}

	return out
}

func FuzzRender(f *testing.F) {
	f.Add([]byte("a\nb"), 10)
	f.Add([]byte(strings.Repeat("z", 2*logfile.MaxLine)+"\n\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		var log []byte
		for rest := data; len(rest) > 0; {
			out, n := logfile.Render(nil, rest, at, "stdout", max(1, limit))
			if n == 0 || n > len(rest) {
				t.Fatalf("consumed %d of %d bytes", n, len(rest))
			}

			log = append(log, out...)
			rest = rest[n:]
		}

		if got := plain(t, log); !bytes.Equal(got, data) {
			t.Fatalf("%q became %q", data, got)
		}
	})
}
