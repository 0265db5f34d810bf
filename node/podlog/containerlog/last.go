package containerlog

import (
	"bytes"
	"strings"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// lastWindow is how much of the end of a file Last looks at: a few lines of the length at which runtimes cut.
const lastWindow = 64 << 10

// Last returns the text of the last entries of the log file at path: of at most that many, and at most size
// bytes. Lines that are not in the format are left out, and so is one that begins before the last 64 KiB of
// the file. It returns an empty text when the file cannot be read.
func Last(path string, entries, size int) string {
	data, err := boundedfile.Tail(path, lastWindow)
	if err != nil {
		return ""
	}

	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	lines = lines[max(len(lines)-entries, 0):]
	var out []byte
	for _, line := range lines {
		e, err := parseEntry(line)
		if err != nil {
			continue
		}

		out = append(out, e.text...)
		if !e.partial {
			out = append(out, '\n')
		}
	}

	text := strings.ToValidUTF8(string(out), "?")
	if len(text) > size {
		// A character may have been cut.
		text = strings.ToValidUTF8(text[len(text)-size:], "")
	}

	return text
}
