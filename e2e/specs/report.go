package specs

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// Outcome of one spec.
type Outcome string

// The outcomes. Missing is a name that the suite does not have: a wrong list, or another version of the
// suite.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
	Missing Outcome = "missing"
)

// Result of one spec.
type Result struct {
	Name    string
	Outcome Outcome
	Took    time.Duration
	Message string // of a failure, or the reason of a skip, its first line
}

type junit struct {
	Suites []struct {
		Cases []junitCase `xml:"testcase"`
	} `xml:"testsuite"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Seconds float64       `xml:"time,attr"`
	Status  string        `xml:"status,attr"`
	Failure *junitMessage `xml:"failure"`
	Error   *junitMessage `xml:"error"`
	Skipped *junitMessage `xml:"skipped"`
}

// junitMessage has the reason; e2e.test leaves the attribute out.
type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (m *junitMessage) firstLine() string {
	line, _, _ := strings.Cut(strings.TrimSpace(cmp.Or(m.Message, m.Text)), "\n")
	return line
}

// readReport maps the name of each spec that the suite knows to its result. A suite that did not find the
// cluster fit to begin is an error.
func readReport(data []byte) (map[string]Result, error) {
	var j junit
	if err := xml.Unmarshal(data, &j); err != nil {
		return nil, err
	}

	found := map[string]Result{}
	for _, s := range j.Suites {
		for _, c := range s.Cases {
			name, isSpec := strings.CutPrefix(c.Name, "[It] ")
			if !isSpec {
				if m := cmp.Or(c.Failure, c.Error); m != nil && strings.HasSuffix(c.Name, "BeforeSuite]") {
					return nil, fmt.Errorf("the suite did not begin: %s", m.firstLine())
				}

				continue
			}

			name = withoutLabels(name)
			r := Result{Name: name, Outcome: Passed, Took: time.Duration(c.Seconds * float64(time.Second))}
			switch {
			case c.Failure != nil:
				r.Outcome, r.Message = Failed, c.Failure.firstLine()
			case c.Error != nil:
				r.Outcome, r.Message = Failed, c.Error.firstLine()
			case c.Skipped != nil:
				r.Outcome, r.Message = Skipped, c.Skipped.firstLine()
			}

			found[name] = r
		}
	}

	return found, nil
}

// withoutLabels drops what ginkgo's reporter appends to a name: the labels, in brackets and comma-separated.
func withoutLabels(name string) string {
	i := strings.LastIndex(name, " [")
	if i >= 0 && strings.HasSuffix(name, "]") && strings.Contains(name[i:], ", ") {
		return name[:i]
	}
	return name
}
