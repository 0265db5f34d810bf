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

// Auth are the credentials of a pull. The zero value is anonymous.
type Auth struct {
	Username, Password string

	// IdentityToken is exchanged for an access token (OAuth 2 refresh token).
	IdentityToken string

	// RegistryToken is sent as it is.
	RegistryToken string

	// ServerAddress, if set, is the only registry that gets the credentials.
	ServerAddress string
}

// ParseAuth returns the credentials of a docker configuration or a CRI AuthConfig, in which auth may hold
// user name and password as base64("user:password").
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

	a.Username = user
	a.Password = strings.Trim(password, "\x00")
	return a, nil
}

// of returns the credentials if host may get them; else none.
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

// authorize returns the Authorization header that answers one of the challenges.
func (s *session) authorize(ctx context.Context, e endpoint, headers []string) (string, error) {
	// A mirror gets credentials only if they are for it.
	auth := s.auth.of(e.base.Host)
	if !e.mirror {
		auth = s.auth.of(s.ref.Host)
	}

	var refused error

	// The first challenge that can be answered counts.
	for _, c := range parseChallenges(headers) {
		switch c.scheme {
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

// token gets an access token from the token server that the registry names (distribution-spec token
// authentication).
func (s *session) token(ctx context.Context, e endpoint, c challenge, auth Auth) (string, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Scheme != "http" && realm.Scheme != "https" {
		return "", errors.New("the registry names a token server without an http address")
	}

	if realm.Scheme == "http" && e.base.Scheme == "https" && auth != (Auth{}) {
		return "", fmt.Errorf("token server %s is not https: credentials are not sent there", realm.Host)
	}

	grant := grant{
		realm:   realm,
		service: c.params["service"],
		scope:   c.params["scope"],
		auth:    auth,
	}
	if grant.scope == "" {
		grant.scope = "repository:" + s.ref.Repository + ":pull"
	}

	if auth.IdentityToken != "" {
		return grant.ask(ctx, e, grant.byPost)
	}

	token, err := grant.ask(ctx, e, grant.byGet)
	status, refused := errors.AsType[*statusError](err)
	if !refused || auth.Username == "" || !knowsPostOnly(status.status) {
		return token, err
	}

	token, postErr := grant.ask(ctx, e, grant.byPost)
	if postErr != nil {
		// Of the two errors, that of the more usual way.
		return "", err
	}

	return token, nil
}

// knowsPostOnly reports whether a token server may mean by its answer that it takes credentials by POST only.
// Some say "unauthorized".
func knowsPostOnly(status int) bool {
	switch status {
	case http.StatusBadRequest,
		http.StatusUnauthorized,
		http.StatusNotFound,
		http.StatusMethodNotAllowed,
		http.StatusNotImplemented:
		return true
	}
	return false
}

// grant is what a token server is asked for, and with which credentials.
type grant struct {
	realm          *url.URL
	service, scope string
	auth           Auth
}

// ask sends a request to the token server and returns the token in its answer.
func (g grant) ask(
	ctx context.Context, e endpoint, by func(context.Context) (*http.Request, error),
) (string, error) {
	request, err := by(ctx)
	if err != nil {
		return "", err
	}

	a, err := e.elsewhere(g.realm).send(request)
	if err != nil {
		return "", &connectionError{fmt.Errorf("ask %s for a token: %w", g.realm.Host, err)}
	}

	if a.StatusCode != http.StatusOK {
		a.foreign = a.foreign || !sameOrigin(g.realm, &e.base)
		refusal := a.refusal()
		refusal.message = "token server " + g.realm.Host + ": " + refusal.message
		return "", refusal
	}

	defer a.Body.Close()

	body, err := io.ReadAll(io.LimitReader(a.Body, maxToken))
	if err != nil {
		return "", &connectionError{fmt.Errorf("read the token of %s: %w", g.realm.Host, err)}
	}

	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}

	// The error of the decoder would quote the answer.
	if json.Unmarshal(body, &answer) != nil {
		return "", fmt.Errorf("token server %s did not answer with a token", g.realm.Host)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" {
		return "", fmt.Errorf("token server %s answered without a token", g.realm.Host)
	}

	return answer.Token, nil
}

const maxToken = 1 << 20

// byGet returns the request of the distribution project's token authentication.
func (g grant) byGet(ctx context.Context) (*http.Request, error) {
	address := *g.realm
	query := g.realm.Query()
	query.Set("scope", g.scope)
	if g.service != "" {
		query.Set("service", g.service)
	}

	address.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err == nil && g.auth.Username != "" {
		request.SetBasicAuth(g.auth.Username, g.auth.Password)
	}

	return request, err
}

// byPost returns the request of the distribution project's OAuth 2 authentication.
func (g grant) byPost(ctx context.Context) (*http.Request, error) {
	form := url.Values{"service": {g.service}, "scope": {g.scope}, "client_id": {"trivet"}}
	if g.auth.IdentityToken != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", g.auth.IdentityToken)
	} else {
		form.Set("grant_type", "password")
		form.Set("username", g.auth.Username)
		form.Set("password", g.auth.Password)
	}

	body := strings.NewReader(form.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.realm.String(), body)
	if err == nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}

	return request, err
}
