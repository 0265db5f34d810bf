// Package steplog carries the times of a short-lived program's steps to the program that runs it, one line
// each: how a CNI plugin, which is too short-lived to send spans itself, shows what its time goes to.
package steplog

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Variable of the environment names the file that takes the lines. It is set by a program that wants them,
// beside TRACEPARENT.
const Variable = "TRIVET_STEPS"

// Step is one step and when it began and ended.
type Step struct {
	Name         string
	Began, Ended time.Time
}

// Log writes steps. A nil Log writes nothing.
type Log struct{ file string }

// FromEnvironment returns the log that the program that runs this one wants, nil if it wants none.
func FromEnvironment() *Log {
	if file := os.Getenv(Variable); file != "" && os.Getenv("TRACEPARENT") != "" {
		return &Log{file}
	}
	return nil
}

// Begin begins a step and returns what ends it. A line that cannot be written is lost: the program's work
// goes on.
func (l *Log) Begin(name string) (end func()) {
	if l == nil {
		return func() {}
	}
	began := time.Now()
	return func() { l.write(Step{Name: name, Began: began, Ended: time.Now()}) }
}

func (l *Log) write(s Step) {
	f, err := os.OpenFile(l.file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = fmt.Fprintf(f, "%d %d %s\n", s.Began.UnixNano(), s.Ended.UnixNano(), s.Name)
}

// What Read takes at most, of all and of one line.
const (
	maxBytes = 64 << 10
	maxSteps = 64
)

// Read returns the steps of a log. What is not one is left out, and so is what exceeds 64 KiB or 64 steps.
func Read(r io.Reader) []Step {
	var out []Step
	lines := bufio.NewScanner(io.LimitReader(r, maxBytes))
	for lines.Scan() && len(out) < maxSteps {
		if s, ok := parse(lines.Text()); ok {
			out = append(out, s)
		}
	}
	return out
}

func parse(line string) (Step, bool) {
	fields := strings.SplitN(line, " ", 3)
	if len(fields) != 3 || fields[2] == "" {
		return Step{}, false
	}

	began, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return Step{}, false
	}

	ended, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || ended < began {
		return Step{}, false
	}

	return Step{Name: fields[2], Began: time.Unix(0, began), Ended: time.Unix(0, ended)}, true
}
