package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

const (
	maxRedirects = 10
	maxErrorBody = 64 << 10 // read of an answer other than success
	maxQuoted    = 200      // letters of it that are shown
)

// answer is a response, after redirects.
type answer struct {
	*http.Response
	foreign bool // it comes from another origin than the one that was asked
}

// send follows redirects. Credentials, headers of hosts.toml and client certificates are for the origin that
// they were made for: once a redirect has led to another one, nothing of them goes along. Only what can be
// fetched again is redirected.
func (e endpoint) send(request *http.Request) (answer, error) {
	var a answer
	client := e.client
	origin := request.URL
	for range maxRedirects {
		response, err := client.Do(request)
		if err != nil {
			return a, &connectionError{withoutAddress(err)}
		}

		a.Response = response
		location := response.Header.Get("Location")
		if !redirects(response.StatusCode) || location == "" || request.Method != http.MethodGet {
			return a, nil
		}

		response.Body.Close()

		to, err := request.URL.Parse(location)
		if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" {
			return a, errors.New("redirected to something that is not an http address")
		}

		// Once the request has left the origin, it stays without credentials, even if it is led back.
		header := request.Header
		if a.foreign || !sameOrigin(to, origin) {
			a.foreign = true
			client = e.foreign
			header = withoutCredentials(header)
		}

		request, err = http.NewRequestWithContext(request.Context(), http.MethodGet, to.String(), nil)
		if err != nil {
			return a, errors.New("redirected to something that is not an http address")
		}

		request.Header = header
	}

	return a, fmt.Errorf("more than %d redirects", maxRedirects)
}

// elsewhere returns the endpoint for another server that it has named: without its client certificate.
func (e endpoint) elsewhere(to *url.URL) endpoint {
	if sameOrigin(to, &e.base) {
		return e
	}
	e.client = e.foreign
	return e
}

// isContent reports whether the answer has what was asked for, or a part of it.
func (a answer) isContent() bool {
	return a.StatusCode == http.StatusOK || a.StatusCode == http.StatusPartialContent
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently,
		http.StatusFound,
		http.StatusSeeOther,
		http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return true
	}
	return false
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// withoutCredentials keeps the headers that say what is wanted, and nothing that says by whom.
func withoutCredentials(header http.Header) http.Header {
	kept := make(http.Header)
	for _, name := range []string{"Accept", "Range", "User-Agent"} {
		if values := header.Values(name); len(values) > 0 {
			kept[name] = values
		}
	}
	return kept
}

// withoutAddress removes the address from an error of net/http: that of a redirect may be signed, which makes
// it a credential.
func withoutAddress(err error) error {
	u, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	at, parseErr := url.Parse(u.URL)
	if parseErr != nil {
		return u.Err
	}
	return fmt.Errorf("%s: %w", at.Host, u.Err)
}

// refusal returns the error of an answer other than success, and closes it. Only what the origin that was
// asked says itself is quoted: else a registry could have this node read, and show, what only the node can
// reach.
func (a answer) refusal() *statusError {
	defer a.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(a.Body, maxErrorBody))
	switch {
	case redirects(a.StatusCode):
		return &statusError{a.StatusCode, "a redirect that is not followed"}
	case a.foreign:
		return &statusError{a.StatusCode, "from " + a.Request.URL.Host + " " + protocolCode(body)}
	}
	return &statusError{a.StatusCode, protocolMessage(body)}
}

// errorBody is the error body of the distribution specification.
type errorBody struct {
	Errors  []struct{ Code, Message string } `json:"errors"`
	Details string                           `json:"details"` // Docker Hub's token server
}

// protocolCode returns the code of an error body as the specification has it, in capital letters; "" if there
// is none.
func protocolCode(body []byte) string {
	var e errorBody
	if json.Unmarshal(body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	code := e.Errors[0].Code
	if len(code) > 40 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return code
}

// protocolMessage returns the text of an error body, fit to be shown in one line.
func protocolMessage(body []byte) string {
	text := string(body)
	var e errorBody
	if json.Unmarshal(body, &e) == nil && len(e.Errors) > 0 {
		text = e.Errors[0].Code + " " + e.Errors[0].Message
	} else if e.Details != "" {
		text = e.Details
	}

	shown := make([]rune, 0, maxQuoted)
	for _, r := range strings.Join(strings.Fields(text[:min(len(text), 8*maxQuoted)]), " ") {
		if len(shown) == maxQuoted {
			return string(shown) + "..."
		}
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}

		shown = append(shown, r)
	}

	return string(shown)
}
