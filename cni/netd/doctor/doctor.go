// Package doctor says what is wrong with the network of a node, and what a person should do about it: what
// the kernel lacks, and what pods that have ended left behind. It changes nothing. What differs between the
// cluster and the node is for package netd to say, which decides how it should be.
package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Level is how much a finding matters.
type Level string

// The levels. A node with a Wrong finding needs somebody.
const (
	OK    Level = "ok"
	Note  Level = "note"
	Wrong Level = "wrong"
)

// Finding is one thing that was found.
type Finding struct {
	Level  Level
	Object string
	What   string
	// Varies says that What has numbers or causes that may differ from one look to the next.
	Varies bool
	// Seen is what there was, where What does not tell it. A look that sees something else has seen somebody
	// at work.
	Seen string
	// Do is what a person should do; "" for nothing.
	Do string
}

// String returns the finding as one line. Names in it may be anybody's: what cannot be printed is escaped, so
// that none of them makes a line of its own or writes to a terminal.
func (f Finding) String() string {
	line := fmt.Sprintf("%-5s  %s: %s", f.Level, f.Object, f.What)
	if f.Do != "" {
		line += "; " + f.Do
	}

	var printed strings.Builder
	for _, r := range line {
		if unicode.IsPrint(r) {
			printed.WriteRune(r)
			continue
		}
		printed.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return printed.String()
}

// isSame reports whether two looks found the same thing.
func (f Finding) isSame(other Finding) bool {
	return f.Level == other.Level && f.Object == other.Object && f.Seen == other.Seen &&
		(f.What == other.What || f.Varies && other.Varies)
}

// Lasting returns the findings of a later look without what is wrong in it alone: something was under way
// then.
func Lasting(before, now []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(now), func(f Finding) bool {
		return f.Level == Wrong && !slices.ContainsFunc(before, f.isSame)
	})
}

// IsWrong reports whether something is.
func IsWrong(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Level == Wrong })
}
