// Package exceptions has the specs of the conformance set that cannot pass on the machines where the results
// in the documents are from, not even with kubelet, each with the reason: what their kernel or the machine
// lacks. An exception whose spec passes is an error.
package exceptions

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed exceptions.txt
var committed string

// Exceptions are reasons by the names of specs: "kernel: it has no dummy links".
type Exceptions map[string]string

// Committed are those of the project.
func Committed() (Exceptions, error) { return Parse(committed) }

// kinds are what can be the cause of an exception.
var kinds = []string{"kernel: ", "machine: "}

// Parse reads exceptions: a line with a reason, which begins with "kernel: " or "machine: ", then one line
// for each name of a spec that it is for. Empty lines and lines that start with # are skipped.
func Parse(text string) (Exceptions, error) {
	all := Exceptions{}
	reason := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case isReason(line):
			reason = line
		case !strings.HasPrefix(line, "[sig-"):
			return nil, fmt.Errorf("exceptions, line %d: %q is neither a reason (%s) nor the name of a spec",
				n, line, strings.Join(kinds, "or "))
		case reason == "":
			return nil, fmt.Errorf("exceptions, line %d: %q has no reason above it", n, line)
		case all[line] != "":
			return nil, fmt.Errorf("exceptions, line %d: %q is there twice", n, line)
		default:
			all[line] = reason
		}
	}

	return all, nil
}

func isReason(line string) bool {
	for _, kind := range kinds {
		if why, found := strings.CutPrefix(line, kind); found && strings.TrimSpace(why) != "" {
			return true
		}
	}
	return false
}
