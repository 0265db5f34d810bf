package unit

import (
	"errors"
	"fmt"
	"strings"
)

// Command is the arguments of the one ExecStart of a unit's text (Text), as they are written there: variables
// and specifiers are systemd's. Files of the path skip are left out.
func Command(text, skip string) (arguments string, err error) {
	var commands []string
	file := ""
	for line := range logicalLines(text) {
		if path, ok := strings.CutPrefix(line, "# /"); ok {
			file = "/" + path
			continue
		}

		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) != "ExecStart" || file == skip {
			continue
		}
		if value = strings.TrimSpace(value); value == "" {
			// It takes back those before.
			commands = nil
			continue
		}
		commands = append(commands, value)
	}

	if len(commands) != 1 {
		return "", fmt.Errorf("%d lines ExecStart=, want one", len(commands))
	}

	program, arguments, _ := strings.Cut(commands[0], " ")
	if !strings.HasPrefix(program, "/") {
		return "", fmt.Errorf("ExecStart=%s: want a program by its path", program)
	}
	return strings.TrimSpace(arguments), nil
}

// startedBy is the program in the property ExecStart, which is { path=PROGRAM ; argv[]=PROGRAM ... ; ... }.
func startedBy(property string) (string, error) {
	_, after, found := strings.Cut(property, "{ path=")
	program, _, ends := strings.Cut(after, " ;")
	if !found || !ends || strings.Contains(after, "{ path=") {
		return "", fmt.Errorf("ExecStart is %q, want one command", property)
	}
	return program, nil
}

// Settings are the lines of the section Service of a unit's file, without those of the keys given.
func Settings(text string, without ...string) (lines []string, err error) {
	inside := false
	for line := range logicalLines(text) {
		if strings.HasPrefix(line, "[") {
			inside = line == "[Service]"
			continue
		}

		key, _, isSetting := strings.Cut(line, "=")
		if !inside || !isSetting || strings.HasPrefix(line, "#") {
			continue
		}

		skip := false
		for _, w := range without {
			skip = skip || w == key
		}
		if !skip {
			lines = append(lines, line)
		}
	}

	if len(lines) == 0 {
		return nil, errors.New("the unit has no settings in [Service]")
	}
	return lines, nil
}

// logicalLines are the lines of a unit's file, those joined that a backslash continues (systemd.syntax(7)).
func logicalLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var whole strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			comment := strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
			if comment && whole.Len() > 0 {
				continue
			}
			if head, more := strings.CutSuffix(line, `\`); more && !comment {
				whole.WriteString(head + " ")
				continue
			}

			whole.WriteString(line)
			if !yield(whole.String()) {
				return
			}
			whole.Reset()
		}
	}
}
