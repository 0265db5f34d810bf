package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// endpoint is one address from which images of a registry may come.
type endpoint struct {
	base    url.URL // with the /v2 path
	pull    bool    // may be asked for content by digest
	resolve bool    // may be asked what a tag means
	mirror  bool    // stands for another registry, which the parameter ns names
	header  http.Header
	tls     *tls.Config // nil: defaults
	client  *http.Client

	// foreign is for other servers that the endpoint names: without its client certificate.
	foreign *http.Client
}

// hostEntry is what hosts.toml says about one host. The same keys at the top level are about the registry
// itself.
type hostEntry struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	OverridePath bool           `toml:"override_path"`
	Header       map[string]any `toml:"header"`
}

type hostsFile struct {
	hostEntry
	Server string               `toml:"server"`
	Host   map[string]hostEntry `toml:"host"`
}

// endpoints returns where the images of host come from, in order: the mirrors of DIR/<host>/hosts.toml (or
// DIR/_default/hosts.toml), then the registry itself. The file is read at each pull, so a change does not
// need a restart.
func endpoints(dir, host string) ([]endpoint, error) {
	own := url.URL{Scheme: defaultScheme(host), Host: canonicalHost(host)}
	for _, name := range directoryNames(host) {
		path := filepath.Join(dir, name, "hosts.toml")
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			continue
		}
		if err != nil {
			return nil, err
		}

		list, err := parseHosts(data, filepath.Dir(path), host, own)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}

		return list, nil
	}

	own.Path = "/v2"
	return []endpoint{{base: own, pull: true, resolve: true}}, nil
}

// directoryNames returns the names that containerd tries, as not every filesystem takes a colon.
func directoryNames(host string) []string {
	names := []string{host}
	if name, port, err := net.SplitHostPort(host); err == nil {
		names = append(names, name+"_"+port+"_")
	}
	return append(names, "_default")
}

func canonicalHost(host string) string {
	if host == "docker.io" {
		return "registry-1.docker.io"
	}
	return host
}

// defaultScheme returns https, but http for a registry on this machine: nobody listens in between, and nobody
// issues a certificate for 127.0.0.1.
func defaultScheme(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name = host
		port = ""
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	isLocal := name == "localhost" || ip != nil && ip.IsLoopback()
	if isLocal && port != "443" {
		return "http"
	}
	return "https"
}

// parseHosts reads one hosts.toml. own is the registry's own address, used when the file names no server.
func parseHosts(data []byte, dir, host string, own url.URL) ([]endpoint, error) {
	var file hostsFile
	if err := toml.Unmarshal(data, &file); err != nil {
		return nil, err
	}

	var list []endpoint
	for _, address := range hostOrder(data) {
		entry, known := file.Host[address]
		if !known {
			continue
		}

		e, err := entry.endpoint(address, dir, host)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", address, err)
		}

		list = append(list, e)
	}

	// The registry itself comes last, or the server that the file names in its place.
	server := file.Server
	if server == "" {
		server = own.String()
	}

	e, err := file.hostEntry.endpoint(server, dir, host)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", server, err)
	}

	return append(list, e), nil
}

// hostOrder returns the names of the [host."..."] tables in the order of the file, which is the order in
// which hosts are asked. A Go map would lose it.
func hostOrder(data []byte) (order []string) {
	var p unstable.Parser
	p.Reset(data)
	seen := make(map[string]bool)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}

		keys := e.Key()
		if !keys.Next() || string(keys.Node().Data) != "host" || !keys.Next() {
			continue
		}

		if address := string(keys.Node().Data); !seen[address] {
			seen[address] = true
			order = append(order, address)
		}
	}

	return order
}

func (h hostEntry) endpoint(address, dir, host string) (endpoint, error) {
	if !strings.Contains(address, "://") {
		address = defaultScheme(address) + "://" + address
	}

	base, err := url.Parse(address)
	if err != nil {
		return endpoint{}, err
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return endpoint{}, errors.New("not an http or https address")
	}

	base.Host = canonicalHost(base.Host)
	base.Path = strings.TrimRight(base.Path, "/")
	if !h.OverridePath && !strings.HasSuffix(base.Path, "/v2") {
		base.Path += "/v2"
	}

	e := endpoint{
		base:   url.URL{Scheme: base.Scheme, Host: base.Host, Path: base.Path},
		mirror: base.Host != canonicalHost(host),
	}
	if err := h.capabilities(&e); err != nil {
		return endpoint{}, err
	}
	if e.header, err = headers(h.Header); err != nil {
		return endpoint{}, err
	}

	e.tls, err = h.tlsConfig(dir)
	return e, err
}

func (h hostEntry) capabilities(e *endpoint) error {
	if len(h.Capabilities) == 0 {
		e.pull = true
		e.resolve = true
	}

	for _, c := range h.Capabilities {
		switch strings.ToLower(c) {
		case "pull":
			e.pull = true
		case "resolve":
			e.resolve = true
		case "push", "referrers":
		default:
			return fmt.Errorf("unknown capability %q", c)
		}
	}

	return nil
}

func headers(table map[string]any) (http.Header, error) {
	h := make(http.Header)
	for key, value := range table {
		texts, err := texts(value)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", key, err)
		}
		for _, t := range texts {
			h.Add(key, t)
		}
	}
	return h, nil
}

// tlsConfig loads the certificates; relative names are below dir. It is nil if the defaults apply.
func (h hostEntry) tlsConfig(dir string) (*tls.Config, error) {
	if h.CA == nil && h.Client == nil && h.SkipVerify == nil {
		return nil, nil
	}

	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.SkipVerify != nil {
		config.InsecureSkipVerify = *h.SkipVerify
	}

	// Authorities of the file are trusted beside those of the system.
	authorities, err := texts(h.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}

	if len(authorities) > 0 {
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	}

	for _, name := range authorities {
		pem, err := os.ReadFile(below(dir, name))
		if err != nil {
			return nil, err
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca %s: no certificate in it", name)
		}
	}

	// Client certificates are shown to this host only.
	pairs, err := clientPairs(h.Client)
	if err != nil {
		return nil, err
	}

	for _, pair := range pairs {
		cert, err := tls.LoadX509KeyPair(below(dir, pair[0]), below(dir, pair[1]))
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", pair[0], err)
		}

		config.Certificates = append(config.Certificates, cert)
	}

	return config, nil
}

// clientPairs reads the three forms of "client": one file with certificate and key, a list of such files, or
// a list of [certificate, key].
func clientPairs(value any) (pairs [][2]string, err error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return [][2]string{{v, v}}, nil
	case []any:
		for _, item := range v {
			files, err := texts(item)
			switch {
			case err != nil:
				return nil, fmt.Errorf("client: %w", err)
			case len(files) == 1 || len(files) == 2 && files[1] == "":
				pairs = append(pairs, [2]string{files[0], files[0]})
			case len(files) == 2:
				pairs = append(pairs, [2]string{files[0], files[1]})
			default:
				return nil, fmt.Errorf("client: %d files, want certificate and key", len(files))
			}
		}

		return pairs, nil
	}

	return nil, fmt.Errorf("client: %T is neither text nor list", value)
}

func texts(value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("%T is not text", item)
			}

			out = append(out, s)
		}

		return out, nil
	}

	return nil, fmt.Errorf("%T is neither text nor list", value)
}

func below(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}
