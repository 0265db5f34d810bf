// Package exposition writes metrics in Prometheus' text format, sample by sample and without objects between
// them: a node has tens of thousands of samples, and most of what they are is labels, which are rendered once
// for each group and not for each sample. Page serves what was written to many at once.
//
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
package exposition

import (
	"io"
	"strconv"
	"strings"
	"time"
)

// ContentType is that of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Labels are rendered labels: a="b",c="d".
type Labels string

// Pairs renders labels: name, value, name, value... Names must be valid; values may be anything.
func Pairs(pairs ...string) Labels {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}

		b.WriteString(pairs[i])
		b.WriteString(`="`)
		_, _ = escaper.WriteString(&b, strings.ToValidUTF8(pairs[i+1], "\uFFFD"))
		b.WriteByte('"')
	}

	return Labels(b.String())
}

var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// Kinds of metrics.
const (
	Counter = "counter"
	Gauge   = "gauge"
)

// chunk is how much is written at once.
const chunk = 32 << 10

// Writer writes families of samples. The first error of the writer below stays.
type Writer struct {
	out  io.Writer
	buf  []byte
	name string
	// head is the heading of the family, until there is a sample: an empty family is not shown.
	head []byte
	err  error
}

// NewWriter returns a writer. Flush must be called at the end.
func NewWriter(out io.Writer) *Writer {
	return &Writer{out: out, buf: make([]byte, 0, chunk+4<<10)}
}

// Family begins a metric; its samples follow.
func (w *Writer) Family(name, kind, help string) {
	w.name = name
	w.head = append(w.head[:0], "# HELP "...)
	w.head = append(w.head, name...)
	w.head = append(w.head, ' ')
	w.head = append(w.head, help...)
	w.head = append(w.head, "\n# TYPE "...)
	w.head = append(w.head, name...)
	w.head = append(w.head, ' ')
	w.head = append(w.head, kind...)
	w.head = append(w.head, '\n')
}

// Uint writes a sample. The zero time is a sample without a time: that of the scrape.
func (w *Writer) Uint(n uint64, at time.Time, labels ...Labels) {
	w.begin(labels)
	w.buf = strconv.AppendUint(w.buf, n, 10)
	w.end(at)
}

// Float writes a sample.
func (w *Writer) Float(f float64, at time.Time, labels ...Labels) {
	w.begin(labels)
	w.buf = strconv.AppendFloat(w.buf, f, 'g', -1, 64)
	w.end(at)
}

// Seconds writes a sample of a time that is not negative, to the nanosecond.
func (w *Writer) Seconds(d time.Duration, at time.Time, labels ...Labels) {
	w.begin(labels)
	w.buf = strconv.AppendUint(w.buf, uint64(d/time.Second), 10)
	if rest := uint64(d % time.Second); rest > 0 {
		// A one before the fraction keeps its leading zeros; the point takes its place.
		point := len(w.buf)
		w.buf = strconv.AppendUint(w.buf, uint64(time.Second)+rest, 10)
		w.buf[point] = '.'
		for w.buf[len(w.buf)-1] == '0' {
			w.buf = w.buf[:len(w.buf)-1]
		}
	}

	w.end(at)
}

func (w *Writer) begin(labels []Labels) {
	w.buf = append(w.buf, w.head...)
	w.head = w.head[:0]

	w.buf = append(w.buf, w.name...)
	separator := byte('{')
	for _, l := range labels {
		if l == "" {
			continue
		}

		w.buf = append(w.buf, separator)
		w.buf = append(w.buf, l...)
		separator = ','
	}

	if separator == ',' {
		w.buf = append(w.buf, '}')
	}

	w.buf = append(w.buf, ' ')
}

func (w *Writer) end(at time.Time) {
	if !at.IsZero() {
		w.buf = append(w.buf, ' ')
		w.buf = strconv.AppendInt(w.buf, at.UnixMilli(), 10)
	}

	w.buf = append(w.buf, '\n')
	if len(w.buf) >= chunk {
		w.flush()
	}
}

// Flush writes what is left and returns the first error.
func (w *Writer) Flush() error {
	w.flush()
	return w.err
}

func (w *Writer) flush() {
	if w.err == nil {
		_, w.err = w.out.Write(w.buf)
	}
	w.buf = w.buf[:0]
}
