package podenv

import (
	"bytes"
	"fmt"
	"strings"
)

// ParseFile reads an env file: lines KEY='value', with comments (#) and empty lines between them, the subset
// of POSIX shell that KEP-3721 defines: the value is in single quotes and taken literally, line breaks
// included. Unquoted values without blanks are taken as well.
func ParseFile(data []byte) (map[string]string, error) {
	out := map[string]string{}
	for line := 1; len(data) > 0; {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		s := strings.TrimLeft(string(text), " \t")
		if strings.TrimSpace(s) == "" || strings.HasPrefix(s, "#") {
			data, line = rest, line+1
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

			out[key], data, line = value, rest, line+1
			continue
		}

		open := bytes.IndexByte(data, '\'')
		end := bytes.IndexByte(data[open+1:], '\'')
		if end < 0 {
			return nil, fmt.Errorf("env file line %d: the quote of %s is not closed", line, key)
		}

		quoted := data[open+1 : open+1+end]
		tail, next, _ := bytes.Cut(data[open+2+end:], []byte("\n"))
		if t := strings.TrimSpace(string(tail)); t != "" && !strings.HasPrefix(t, "#") {
			return nil, fmt.Errorf("env file line %d: nothing may follow the value of %s", line, key)
		}

		out[key] = string(quoted)
		line += bytes.Count(quoted, []byte("\n")) + 1
		data = next
	}

	return out, nil
}
