// Package logfile writes container output as CRI log files (kubernetes/design-proposals kubelet-cri-logging:
// "TIME STREAM P|F CONTENT") so that a kill -9 at any instruction neither loses a byte nor writes one twice.
// docs/monitor.md explains how.
package logfile

import "bytes"

// MaxLine is how much content one log line holds. Longer ones are split, all parts but the last tagged P
// (partial).
const MaxLine = 16 << 10

// TimeFormat is RFC 3339 with all nine digits, so that lines sort as text.
const TimeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Render appends the lines of data to dst as log lines with the given prefix ("TIME STREAM "), until about
// limit bytes are written, and says how much of data they stand for. An unfinished line at the end is left
// out if anything came before it: more of it may come soon. Alone, it is written as a partial line. So all of
// data is rendered by repeated calls, and each call with data makes progress.
func Render(dst, data, prefix []byte, limit int) (out []byte, consumed int) {
	for consumed < len(data) && len(dst) < limit {
		rest := data[consumed:]
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
