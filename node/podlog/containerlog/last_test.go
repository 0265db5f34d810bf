package containerlog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// head begins a whole line.
const head = "2026-01-01T00:00:00Z stdout F "

// last returns the end of a log of this text.
func last(t *testing.T, text string, entries, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Last(path, entries, size)
}

func TestLastEntriesOfALog(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want string
	}{
		"partial entries are joined": {
			log:  head + "hello\n2026-01-01T00:00:00Z stderr P wor\n2026-01-01T00:00:00Z stderr F ld\n",
			want: "hello\nworld\n",
		},
		"bytes that are not text are marked": {
			log:  head + "a\xffb\n",
			want: "a?b\n",
		},
		"a line that is not in the format is left out": {
			log:  "torn by a crash\n" + head + "good\n",
			want: "good\n",
		},

		// What is left of it may look like a line.
		"a line that begins before the window is left out": {
			log:  head + strings.Repeat("words of a long line ", 4000) + "\n" + head + "good\n",
			want: "good\n",
		},
		"an empty log": {},
	} {
		if got := last(t, c.log, 80, 100); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestLastEntriesAreBounded(t *testing.T) {
	log := head + "one\n" + head + "two\n" + head + "three\n"
	if got := last(t, log, 2, 100); got != "two\nthree\n" {
		t.Errorf("two entries: %q", got)
	}
	long := head + "first\n" + head + strings.Repeat("x", 20<<10) + "end\n"
	if got := last(t, long, 80, 6); got != "xxend\n" {
		t.Errorf("six bytes of a long line: %q", got)
	}
	if got := last(t, head+"ää\n", 80, 4); got != "ä\n" {
		t.Errorf("a character is cut: %q", got)
	}
}

func TestLastOfNoLogIsEmpty(t *testing.T) {
	if got := Last(filepath.Join(t.TempDir(), "none"), 80, 100); got != "" {
		t.Errorf("got %q", got)
	}
}

func FuzzLast(f *testing.F) {
	f.Add([]byte(head + "hello\n2026-01-01T00:00:00Z stderr P wor\n2026-01-01T00:00:00Z stderr F ld\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		const size = 2048
		if got := Last(path, 80, size); len(got) > size || !utf8.ValidString(got) {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.5Z stdout F text"))
	f.Add([]byte("2026-01-02T03:04:05Z stderr P:x "))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEntry(data)
		if err == nil && !bytes.HasSuffix(data, e.text) {
			t.Errorf("text %q is not the end of %q", e.text, data)
		}
	})
}
