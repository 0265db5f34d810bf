package seats

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// verdicts reads what a test program prints with -test.v, and passes on how each test ended.
type verdicts struct {
	out  io.Writer
	rest []byte

	passed, failed, skipped []string
}

// Write takes any part of the output.
func (v *verdicts) Write(p []byte) (int, error) {
	v.rest = append(v.rest, p...)
	for {
		line, rest, whole := bytes.Cut(v.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}

		v.rest = rest
		v.line(string(line))
	}
}

// line takes "--- PASS: TestName (1.23s)"; those of subtests are indented.
func (v *verdicts) line(text string) {
	rest, isVerdict := strings.CutPrefix(text, "--- ")
	state, test, found := strings.Cut(rest, ": ")
	if !isVerdict || !found {
		return
	}

	fmt.Fprintln(v.out, text)
	name, _, _ := strings.Cut(test, " ")
	switch state {
	case "PASS":
		v.passed = append(v.passed, name)
	case "FAIL":
		v.failed = append(v.failed, name)
	case "SKIP":
		v.skipped = append(v.skipped, name)
	}
}
