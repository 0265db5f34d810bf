package suite

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

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

// leftOutMessage is that of a spec that was not chosen, or that had not run when its suite ended: a reason
// follows it for one that was skipped.
const leftOutMessage = "skipped"

// LeftOut reports whether the spec did not run: it was not chosen, or the suite ended before.
func (r Result) LeftOut() bool { return r.Outcome == Skipped && r.Message == leftOutMessage }

func (m *junitMessage) firstLine() string {
	line, _, _ := strings.Cut(strings.TrimSpace(cmp.Or(m.Message, m.Text)), "\n")
	return line
}

// readReport maps the name of each spec that the suite knows to its result. A suite that did not find the
// cluster fit to begin is an error.
func readReport(data []byte) (map[string]Result, error) {
	var j junit
	if err := xml.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("it is cut off or damaged: %w", err)
	}

	found := map[string]Result{}
	for _, s := range j.Suites {
		for _, c := range s.Cases {
			name, isSpec := strings.CutPrefix(c.Name, "[It] ")
			if isSpec {
				r := c.result(withoutLabels(name))
				found[r.Name] = r
				continue
			}

			if m := cmp.Or(c.Failure, c.Error); m != nil && strings.HasSuffix(c.Name, "BeforeSuite]") {
				return nil, fmt.Errorf("the suite did not begin: %s", m.firstLine())
			}
		}
	}

	return found, nil
}

func (c junitCase) result(name string) Result {
	r := Result{
		Name:    name,
		Outcome: Passed,
		Took:    time.Duration(c.Seconds * float64(time.Second)),
	}

	switch {
	case c.Failure != nil:
		r.Outcome, r.Message = Failed, c.Failure.firstLine()
	case c.Error != nil:
		r.Outcome, r.Message = Failed, c.Error.firstLine()
	case c.Skipped != nil:
		r.Outcome, r.Message = Skipped, c.Skipped.firstLine()
	}

	return r
}
