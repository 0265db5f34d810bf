// Package logfile writes CRI log files, the format that kubelet reads (Kubernetes design proposal "CRI: log
// management for container stdout/stderr streams"): one line for each line of output, "TIME STREAM TAG
// CONTENT", where TAG is F for a full line and P for a part of one. cri/logjournal writes through it so that
// a kill neither loses nor doubles a line.
package logfile

import (
	"bytes"
	"time"
)

// MaxLine is how many bytes of content one log line holds. A longer line of output is split, and all parts
// but the last are tagged P.
const MaxLine = 16 << 10

// timeFormat is RFC 3339 with all nine digits, so that lines sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Render appends the lines of data to dst as log lines of a stream ("stdout" or "stderr") until about limit
// bytes are written, and returns how much of data they stand for. An unfinished line at the end is left out
// if anything came before it, since more of it may come soon; alone, it is written as a partial line. So
// repeated calls render all of data, and each call makes progress.
func Render(dst, data []byte, at time.Time, stream string, limit int) (out []byte, consumed int) {
	prefix := at.AppendFormat(make([]byte, 0, 64), timeFormat)
	prefix = append(prefix, ' ')
	prefix = append(prefix, stream...)
	prefix = append(prefix, ' ')

	for consumed < len(data) && len(dst) < limit {
		rest := data[consumed:]

		// A newline may come right after the longest line.
		end := bytes.IndexByte(rest[:min(len(rest), MaxLine+1)], '\n')

		switch {
		case end >= 0:
			dst = appendLine(dst, prefix, "F ", rest[:end])
			consumed += end + 1
		case len(rest) > MaxLine:
			dst = appendLine(dst, prefix, "P ", rest[:MaxLine])
			consumed += MaxLine
		case consumed > 0:
			return dst, consumed
		default:
			dst = appendLine(dst, prefix, "P ", rest)
			consumed += len(rest)
		}
	}

	return dst, consumed
}

func appendLine(dst, prefix []byte, tag string, content []byte) []byte {
	dst = append(dst, prefix...)
	dst = append(dst, tag...)
	dst = append(dst, content...)
	return append(dst, '\n')
}
