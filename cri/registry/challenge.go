package registry

import "strings"

// challenge is one way to authenticate that a WWW-Authenticate header offers (RFC 9110 section 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenges reads headers, each of which may hold several challenges. What cannot be parsed is ignored.
func parseChallenges(headers []string) (list []challenge) {
	for _, rest := range headers {
		var c challenge
		for {
			rest = strings.TrimLeft(rest, " \t,=\"")
			if rest == "" {
				break
			}

			end := strings.IndexAny(rest, " \t,=\"")
			if end < 0 {
				end = len(rest)
			}

			word := strings.ToLower(rest[:end])
			rest = strings.TrimLeft(rest[end:], " \t")
			if value, isParam := strings.CutPrefix(rest, "="); isParam && c.params != nil {
				c.params[word], rest = parseValue(strings.TrimLeft(value, " \t"))
				continue
			}

			c = challenge{scheme: word, params: make(map[string]string)}
			list = append(list, c)
		}
	}

	return list
}

// parseValue reads a token or a quoted string.
func parseValue(text string) (value, rest string) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, " \t,")
		if end < 0 {
			end = len(text)
		}

		return text[:end], text[end:]
	}

	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:]
		case text[i] == '\\' && i+1 < len(text):
			i++
		}

		b.WriteByte(text[i])
	}

	return b.String(), ""
}
