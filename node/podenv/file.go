package podenv

import (
	"bytes"
	"fmt"
	"strings"
)

// ParseFile reads an env file by the subset of POSIX shell that KEP-3721 defines: lines KEY='value', with
// comments (#) and empty lines between them. The value is taken literally, line breaks included. Unquoted
// values without blanks are taken as well.
func ParseFile(data []byte) (map[string]string, error) {
	out := map[string]string{}
	for line := 1; len(data) > 0; {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		s := strings.TrimLeft(string(text), " \t")
		if strings.TrimSpace(s) == "" || strings.HasPrefix(s, "#") {
			data = rest
			line++
			continue
		}

		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t'\"") {
			return nil, fmt.Errorf("env file line %d: must be KEY='value'", line)
		}

		if !strings.HasPrefix(value, "'") {
			value = strings.TrimRight(value, " \t\r")
			if strings.ContainsAny(value, " \t'\"`$\\") {
				return nil, fmt.Errorf("env file line %d: the value of %s must be in single quotes",
					line, key)
			}

			out[key] = value
			data = rest
			line++
			continue
		}

		// A quoted value may have line breaks, so it does not end with the line.
		_, quoted, _ := bytes.Cut(data, []byte("'"))
		literal, tail, closed := bytes.Cut(quoted, []byte("'"))
		if !closed {
			return nil, fmt.Errorf("env file line %d: the quote of %s is not closed", line, key)
		}

		tail, next, _ := bytes.Cut(tail, []byte("\n"))
		if t := strings.TrimSpace(string(tail)); t != "" && !strings.HasPrefix(t, "#") {
			return nil, fmt.Errorf("env file line %d: nothing may follow the value of %s", line, key)
		}

		out[key] = string(literal)
		line += bytes.Count(literal, []byte("\n")) + 1
		data = next
	}

	return out, nil
}
