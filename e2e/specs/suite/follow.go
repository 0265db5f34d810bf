package suite

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxLine is the longest line of output that is followed, in bytes.
const maxLine = 4 << 20

// endLine is the first of the lines on a spec that has ended: "• [2.405 seconds]", "• [FAILED] [12.1
// seconds]" or "S [SKIPPED] [0.1 seconds]". One that was interrupted has not come to its end.
var endLine = regexp.MustCompile(
	`^(?:•|S) (?:\[(FAILED|SKIPPED|PANICKED|TIMEDOUT)\] )?\[([0-9.]+) seconds\]`)

// reasonLine has the message of a failure, or why a spec was skipped. Lines of the timeline of a spec that
// begin alike have no message.
var reasonLine = regexp.MustCompile(`^  \[(?:FAILED|SKIPPED|PANICKED|TIMEDOUT)\] (.*)$`)

// failedNode is what ginkgo writes into the name of a spec to show which part of it has failed.
var failedNode = regexp.MustCompile(
	`\[(?:It|(?:Just|Report)?(?:Before|After)Each|BeforeAll|AfterAll|DeferCleanup \(\w+\))\] `)

// separator is printed between specs.
const separator = "------------------------------"

// follow reads what ginkgo prints with -v in several processes, and calls ended for each spec that has ended:
// all lines about it are printed together then. A suite in one process shows no names here.
func follow(out io.Reader, ended func(Result)) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)

	var spec *Result
	finish := func() {
		if spec != nil && spec.Name != "" {
			ended(*spec)
		}

		spec = nil
	}

	for lines.Scan() {
		line := lines.Text()
		begun := beginning(line)
		switch {
		case begun != nil:
			finish()
			spec = begun
		case line == separator:
			finish()
		case spec != nil && spec.Name == "":
			spec.Name = nameOf(line)
			if spec.Name == "" {
				spec = nil
			}

		case spec != nil && spec.Outcome != Passed:
			spec.Message = messageOf(line, spec.Message)
		}
	}

	finish()

	// After a line that is too long the suite must not block.
	_, _ = io.Copy(io.Discard, out)
}

// beginning returns what the first of the lines on a spec says; nil for any other line.
func beginning(line string) *Result {
	match := endLine.FindStringSubmatch(line)
	if match == nil {
		return nil
	}

	r := &Result{Outcome: Failed}
	switch match[1] {
	case "":
		r.Outcome = Passed
	case "SKIPPED":
		r.Outcome = Skipped
	}

	if seconds, err := strconv.ParseFloat(match[2], 64); err == nil {
		r.Took = time.Duration(seconds * float64(time.Second))
	}

	return r
}

// messageOf returns the message that a line has, or what was found before: the last one counts, as the
// timeline comes first.
func messageOf(line, before string) string {
	match := reasonLine.FindStringSubmatch(line)
	if match == nil || strings.HasPrefix(match[1], "in [") {
		return before
	}
	return match[1]
}

// external begins the name of a spec of a driver that was defined for the suite, where others have their SIG.
const external = "External Storage "

// nameOf returns the name of the spec on a line; "" if there is none.
func nameOf(line string) string {
	if !strings.HasPrefix(strings.TrimPrefix(line, external), "[") {
		return ""
	}
	return withoutLabels(failedNode.ReplaceAllString(line, ""))
}

// versions are the versions of components that a spec needs, which ginkgo appends to its name behind the
// labels: " [kubelet: [>=1.36]]".
var versions = regexp.MustCompile(`( \[([\w.-]+: \[[^][]*](, )?)+])$`)

// withoutLabels drops what ginkgo appends to a name: the labels, in brackets and separated by commas, and
// versions. A spec of e2e.test has one label at least, that of its SIG or driver, which begins its name, too.
func withoutLabels(name string) string {
	name = versions.ReplaceAllString(name, "")
	i := strings.LastIndex(name, " [")
	if i < 0 || !strings.HasSuffix(name, "]") {
		return name
	}

	labels := name[i+1:]
	if strings.Contains(labels, ", ") || strings.HasPrefix(strings.TrimPrefix(name, external), labels+" ") {
		return name[:i]
	}

	return name
}
