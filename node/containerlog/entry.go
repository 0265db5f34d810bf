// Package containerlog reads the logs of containers in the CRI format, rotated files included, and follows
// them as they grow. The format (one line per write: TIME STREAM TAG TEXT) is that of kubelet's
// https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
package containerlog

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Entry is one line of a log file.
type Entry struct {
	Time    time.Time
	Stream  string // stdout or stderr
	Partial bool   // the text goes on in the next entry of the stream
	Text    []byte // without the line end of the file
}

var errFormat = errors.New("not a line of a CRI log")

// ParseEntry reads a line without its line end. The text is a part of line, not a copy.
func ParseEntry(line []byte) (Entry, error) {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || (!ok3 && len(tags) == 0) {
		return Entry{}, errFormat
	}

	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errFormat, err)
	}

	e := Entry{Time: at, Text: text}
	switch string(stream) {
	case "stdout", "stderr":
		e.Stream = string(stream)
	default:
		return Entry{}, fmt.Errorf("%w: stream %q", errFormat, stream)
	}

	first, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(first) {
	case "P":
		e.Partial = true
	case "F":
	default:
		return Entry{}, fmt.Errorf("%w: tag %q", errFormat, tags)
	}

	return e, nil
}
