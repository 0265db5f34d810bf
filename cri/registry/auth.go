package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Auth is what a pull may show to a registry. The zero value is anonymous.
type Auth struct {
	Username, Password string
	IdentityToken      string // exchanged for an access token (OAuth 2 refresh token)
	RegistryToken      string // sent as it is
	ServerAddress      string // if set, the only registry that gets to see it
}

// ParseAuth makes an Auth of the fields of a docker configuration or a CRI AuthConfig, where both may stand in auth as base64("user:password").
func ParseAuth(a Auth, auth string) (Auth, error) {
	if auth == "" || a.Username != "" {
		return a, nil
	}
	text, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return Auth{}, errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(string(text), ":")
	if !ok {
		return Auth{}, errors.New("auth is not user:password in base64")
	}
	a.Username, a.Password = user, strings.Trim(password, "\x00")
	return a, nil
}

// of returns what host may see of the authentication.
func (a Auth) of(host string) Auth {
	if a.ServerAddress == "" {
		return a
	}
	server := a.ServerAddress
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	server, _, _ = strings.Cut(server, "/")
	if server == "index.docker.io" {
		server = "docker.io"
	}
	if canonicalHost(server) == canonicalHost(host) {
		return a
	}
	return Auth{}
}

// challenge is a WWW-Authenticate header (RFC 9110 section 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

func parseChallenge(header string) challenge {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	c := challenge{scheme: strings.ToLower(scheme), params: make(map[string]string)}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			value, rest, _ = strings.Cut(after[1:], `"`)
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		c.params[strings.ToLower(strings.TrimSpace(key))] = value
	}
	return c
}

// authorize answers a challenge: it returns the Authorization header for the next try.
func (s *session) authorize(ctx context.Context, e endpoint, headers []string) (string, error) {
	auth := s.auth.of(e.base.Host)
	if !e.mirror {
		auth = s.auth.of(s.ref.Host)
	}
	var refused error
	for _, h := range headers {
		switch c := parseChallenge(h); c.scheme {
		case "bearer":
			if auth.RegistryToken != "" {
				return "Bearer " + auth.RegistryToken, nil
			}
			token, err := s.token(ctx, e, c, auth)
			if err != nil {
				return "", err
			}
			return "Bearer " + token, nil
		case "basic":
			if auth.Username == "" {
				refused = errors.New("the registry wants a user name and password, and none was given")
				continue
			}
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(auth.Username+":"+auth.Password)), nil
		}
	}
	if refused == nil {
		refused = errors.New("access denied, and the registry offers no known way to authenticate")
	}
	return "", refused
}

// token gets an access token from the token server that the registry names (distribution-spec token authentication).
func (s *session) token(ctx context.Context, e endpoint, c challenge, auth Auth) (string, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Scheme != "http" && realm.Scheme != "https" {
		return "", fmt.Errorf("token server %q is no http address", c.params["realm"])
	}
	if realm.Scheme == "http" && e.base.Scheme == "https" && auth != (Auth{}) {
		return "", fmt.Errorf("token server %s is not https: credentials are not sent there", realm)
	}
	scope := c.params["scope"]
	if scope == "" {
		scope = "repository:" + s.ref.Repository + ":pull"
	}
	request, err := tokenRequest(ctx, realm, c.params["service"], scope, auth)
	if err != nil {
		return "", err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return "", &connectionError{fmt.Errorf("ask %s for a token: %w", realm.Host, err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", &connectionError{fmt.Errorf("read the token of %s: %w", realm.Host, err)}
	}
	if response.StatusCode != http.StatusOK {
		return "", &statusError{status: response.StatusCode, message: "token server " + realm.Host + ": " + protocolMessage(body)}
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("token of %s: %w", realm.Host, err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" {
		return "", fmt.Errorf("token server %s answered without a token", realm.Host)
	}
	return answer.Token, nil
}

func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, auth Auth) (*http.Request, error) {
	if auth.IdentityToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {auth.IdentityToken}, "service": {service},
			"scope": {scope}, "client_id": {"trivet"}}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return request, err
	}
	address, query := *realm, realm.Query()
	query.Set("scope", scope)
	if service != "" {
		query.Set("service", service)
	}
	address.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err == nil && auth.Username != "" {
		request.SetBasicAuth(auth.Username, auth.Password)
	}
	return request, err
}
