// Package containerlog reads the logs of containers, rotated files included, and follows them as they grow.
// The format is CRI's, one line for each write: TIME STREAM TAG TEXT
// (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
package containerlog

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// entry is one line of a log file.
type entry struct {
	time    time.Time
	stream  string // stdout or stderr
	partial bool   // the text goes on in the next entry of the stream
	text    []byte // without the line end of the file
}

var errFormat = errors.New("not a line of a CRI log")

// parseEntry parses a line without its line end. The text is a part of the line, not a copy.
func parseEntry(line []byte) (entry, error) {
	stamp, rest, _ := bytes.Cut(line, []byte(" "))
	stream, rest, _ := bytes.Cut(rest, []byte(" "))
	tags, text, _ := bytes.Cut(rest, []byte(" "))

	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return entry{}, fmt.Errorf("%w: %w", errFormat, err)
	}

	e := entry{time: at, text: text}
	switch string(stream) {
	case "stdout", "stderr":
		e.stream = string(stream)
	default:
		return entry{}, fmt.Errorf("%w: stream %q", errFormat, stream)
	}

	first, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(first) {
	case "P":
		e.partial = true
	case "F":
	default:
		return entry{}, fmt.Errorf("%w: tag %q", errFormat, tags)
	}

	return e, nil
}
