package vm

import (
	"bufio"
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxMessage bounds the message of a result, in bytes.
const maxMessage = 300

// tests reads the output of a test program that ran with -test.v: the results of its top-level tests, and of
// benchmarks. One that has begun and not ended has failed.
func tests(program string, output []byte) []Result {
	o := testOutput{
		program:  program,
		open:     map[string]bool{},
		messages: map[string]string{},
	}

	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, len(output)+1)
	for lines.Scan() {
		o.read(lines.Text())
	}

	for _, name := range slices.Sorted(maps.Keys(o.open)) {
		o.results = append(o.results, Result{
			Program: program,
			Test:    name,
			Outcome: Failed,
			Message: "it did not end",
		})
	}

	return o.results
}

// testOutput is what has been read of the output of a test program.
type testOutput struct {
	program  string
	results  []Result
	open     map[string]bool   // the top-level tests and benchmarks that have begun and not ended
	messages map[string]string // what each test or benchmark has said first
	current  string            // the one that lines belong to, "" for the one whose result came last
}

var (
	beginLine      = regexp.MustCompile(`^(?:=== RUN   (\S+)|(Benchmark\S*))$`)
	goesOnLine     = regexp.MustCompile(`^=== (?:CONT|NAME)  (\S+)$`)
	benchmarkLine  = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op`)
	endedBenchmark = regexp.MustCompile(`^(--- FAIL: |--- SKIP: )(Benchmark\S+)$`)
)

func (o *testOutput) read(line string) {
	if found := beginLine.FindStringSubmatch(line); found != nil {
		o.begin(found[1] + found[2])
		return
	}
	if found := goesOnLine.FindStringSubmatch(line); found != nil {
		o.current = subjectOf(found[1])
		return
	}
	if line == "PASS" || line == "FAIL" {
		o.endBenchmarks()
		return
	}

	one, ended := resultOf(line)
	if !ended {
		one, ended = benchmarkOf(line)
	}
	if ended {
		o.end(one)
		return
	}

	// What a test says is indented, behind the name of its file.
	text := strings.TrimSpace(line)
	if strings.HasPrefix(line, "    ") && strings.Contains(text, "_test.go:") {
		o.say(text[:min(len(text), maxMessage)])
	}
}

// begin opens a test or benchmark. Benchmarks run one after another, and nothing is said of one that has
// cases, when it has ended well.
func (o *testOutput) begin(name string) {
	top, _, _ := strings.Cut(name, "/")
	if !o.open[top] {
		o.endBenchmarks()
	}

	o.open[top] = true
	o.current = subjectOf(name)
}

func (o *testOutput) endBenchmarks() {
	maps.DeleteFunc(o.open, func(name string, _ bool) bool { return isBenchmark(name) })
}

// end keeps a result. A benchmark has that of each of its cases, and goes on.
func (o *testOutput) end(r Result) {
	// One that fails when it is repeated is named with the number of processors.
	if isBenchmark(o.current) && strings.HasPrefix(r.Test, o.current+"-") {
		r.Test = o.current
	}

	r.Program = o.program
	if r.Outcome != Passed {
		r.Message = o.messages[r.Test]
	}

	delete(o.open, r.Test)
	o.results = append(o.results, r)
	o.current = ""
}

// say keeps what a test says first: before its result, or after that of a benchmark that is repeated.
func (o *testOutput) say(text string) {
	if o.current != "" {
		if o.messages[o.current] == "" {
			o.messages[o.current] = text
		}
		return
	}

	if n := len(o.results); n > 0 && o.results[n-1].Outcome != Passed && o.results[n-1].Message == "" {
		o.results[n-1].Message = text
	}
}

func isBenchmark(name string) bool { return strings.HasPrefix(name, "Benchmark") }

// subjectOf is what a message of a test is kept for: a case of a benchmark, or a top-level test.
func subjectOf(name string) string {
	if isBenchmark(name) {
		return name
	}
	top, _, _ := strings.Cut(name, "/")
	return top
}

// benchmarkOf reads "BenchmarkName/case-2  100  1234 ns/op", and "--- FAIL: BenchmarkName/case" or SKIP,
// which come without a time.
func benchmarkOf(line string) (r Result, ok bool) {
	if found := endedBenchmark.FindStringSubmatch(line); found != nil {
		return Result{Test: found[2], Outcome: verdicts[found[1]]}, true
	}

	found := benchmarkLine.FindStringSubmatch(line)
	if found == nil {
		return Result{}, false
	}
	took, err := strconv.ParseFloat(found[2], 64)
	return Result{Test: found[1], Outcome: Passed, Operation: took / 1e9}, err == nil
}

var verdicts = map[string]Outcome{
	"--- PASS: ": Passed,
	"--- FAIL: ": Failed,
	"--- SKIP: ": Skipped,
}

// resultOf reads "--- PASS: TestName (1.23s)".
func resultOf(line string) (r Result, ok bool) {
	for prefix, outcome := range verdicts {
		rest, found := strings.CutPrefix(line, prefix)
		if !found {
			continue
		}

		name, took, found := strings.Cut(rest, " (")
		seconds, err := strconv.ParseFloat(strings.TrimSuffix(took, "s)"), 64)
		if !found || err != nil {
			return Result{}, false
		}

		return Result{Test: name, Outcome: outcome, Seconds: seconds}, true
	}

	return Result{}, false
}
