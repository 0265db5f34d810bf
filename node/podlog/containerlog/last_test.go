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

func TestLastEntriesOfALog(t *testing.T) {
	long := strings.Repeat("x", 20<<10)
	for name, c := range map[string]struct {
		log     string
		entries int
		size    int
		want    string
	}{
		"partial entries are joined": {
			log:     head + "hello\n2026-01-01T00:00:00Z stderr P wor\n2026-01-01T00:00:00Z stderr F ld\n",
			entries: 80,
			size:    100,
			want:    "hello\nworld\n",
		},
		"only so many entries": {
			log:     head + "one\n" + head + "two\n" + head + "three\n",
			entries: 2,
			size:    100,
			want:    "two\nthree\n",
		},
		"only so many bytes, of a long line too": {
			log:     head + "first\n" + head + long + "end\n",
			entries: 80,
			size:    6,
			want:    "xxend\n",
		},
		"characters are not cut": {
			log:     head + "ää\n",
			entries: 80,
			size:    4,
			want:    "ä\n",
		},
		"bytes that are not text are marked": {
			log:     head + "a\xffb\n",
			entries: 80,
			size:    100,
			want:    "a?b\n",
		},
		"a line that is not in the format is left out": {
			log:     "torn by a crash\n" + head + "good\n",
			entries: 80,
			size:    100,
			want:    "good\n",
		},
		"a line that begins before the window is left out": {
			log:     head + strings.Repeat("words of a long line ", 4000) + "\n" + head + "good\n",
			entries: 80,
			size:    100,
			want:    "good\n",
		},
		"an empty log": {
			entries: 80,
			size:    100,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			if err := os.WriteFile(path, []byte(c.log), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := Last(path, c.entries, c.size); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
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
