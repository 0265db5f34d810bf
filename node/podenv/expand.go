package podenv

import "strings"

// Expand replaces $(NAME) by the value that lookup has for NAME. $$ is a literal $; $(NAME) without a value,
// and any other $, stay as they are. This is the syntax of env values, command, args and subPathExpr.
func Expand(s string, lookup func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}

	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}

		switch s[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				out.WriteString("$(")
				i++
				continue
			}

			name := s[i+2 : i+2+end]
			if value, ok := lookup(name); ok {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}

			i += 2 + end

		default:
			out.WriteByte('$')
			out.WriteByte(s[i+1])
			i++
		}
	}

	return out.String()
}

// ExpandAll expands each of the strings (command, args) with the variables in env.
func ExpandAll(in []string, env []Variable) []string {
	lookup := Lookup(env)
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = Expand(s, lookup)
	}
	return out
}

// Lookup returns a lookup function over env.
func Lookup(env []Variable) func(string) (string, bool) {
	values := make(map[string]string, len(env))
	for _, v := range env {
		values[v.Name] = v.Value
	}
	return func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}
}
