package seat

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// Where the endpoint of the container runtime is said to an agent that kubeadm has set up: in its
// configuration, in what kubeadm merges into that on an upgrade, or in flags, which win.
const (
	agentConfig    = "/var/lib/kubelet/config.yaml"
	instanceConfig = "/var/lib/kubelet/instance-config.yaml"
	kubeadmFlags   = "/var/lib/kubelet/kubeadm-flags.env"
	extraFlags     = "/etc/default/kubelet"
	extraFlagsRPM  = "/etc/sysconfig/kubelet"
)

// defaultEndpoint is kubelet's.
const defaultEndpoint = "unix:///run/containerd/containerd.sock"

// places are all of these, flagFiles those that have flags.
var (
	flagFiles = []string{kubeadmFlags, extraFlags, extraFlagsRPM}
	places    = append([]string{agentConfig, instanceConfig}, flagFiles...)
)

// endpoints are the places that name the runtime, with what they say as it is written there, quotes and
// comments included. A place that is missing here says nothing.
type endpoints map[string]string

// plain is what a place says without quotes and comments.
func plain(said string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(said), " ")
	return strings.Trim(word, `"'`)
}

var (
	endpointKey  = regexp.MustCompile(`(?m)^containerRuntimeEndpoint:[ \t]*([^\n]*)\n?`)
	endpointFlag = regexp.MustCompile(`(--container-runtime-endpoint(?:=|[ \t]+)["']?)([^\s"']+)`)
)

// flagsOf are the endpoints that the flag has in a file of variables, or in arguments. What is commented out
// says nothing.
func flagsOf(text string) (all []string) {
	for line := range strings.Lines(text) {
		if isComment(line) {
			continue
		}
		for _, match := range endpointFlag.FindAllStringSubmatch(line, -1) {
			all = append(all, match[2])
		}
	}
	return all
}

// withFlag is a file of variables in which the flag, where it is, has another endpoint.
func withFlag(text, said string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !isComment(line) {
			line = endpointFlag.ReplaceAllString(line, "${1}"+said)
		}
		out.WriteString(line)
	}
	return out.String()
}

func isComment(line string) bool {
	line = strings.TrimSpace(line)
	return strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
}

// read finds what the places say now.
func readEndpoints(root string) (endpoints, error) {
	found := endpoints{}
	for _, path := range []string{agentConfig, instanceConfig} {
		text, err := readFile(root + path)
		if err != nil {
			return nil, err
		}
		if match := endpointKey.FindStringSubmatch(text); match != nil {
			found[path] = match[1]
		}
	}

	for _, path := range flagFiles {
		text, err := readFile(root + path)
		if err != nil {
			return nil, err
		}
		all := slices.Compact(flagsOf(text))
		if len(all) > 1 {
			return nil, fmt.Errorf("%s names more than one runtime: %s", path, strings.Join(all, ", "))
		}
		if len(all) == 1 {
			found[path] = all[0]
		}
	}
	return found, nil
}

// used is the endpoint that the agent takes.
func (e endpoints) used() string {
	for _, path := range []string{extraFlagsRPM, extraFlags, kubeadmFlags, agentConfig} {
		if endpoint := plain(e[path]); endpoint != "" {
			return endpoint
		}
	}
	return defaultEndpoint
}

// all reports whether no place names another endpoint, and the configuration names this one.
func (e endpoints) all(endpoint string) bool {
	for _, said := range e {
		if plain(said) != endpoint {
			return false
		}
	}
	return plain(e[agentConfig]) == endpoint
}

// ours has all places that name a runtime, and the configuration, name trivet-cri.
func (e endpoints) ours() endpoints {
	next := endpoints{agentConfig: criEndpoint}
	for path := range e {
		next[path] = criEndpoint
	}
	return next
}

// back has all places name again what they named, and those that have come to name trivet-cri since, the
// runtime before: kubeadm takes the flag for its configuration when it is upgraded.
func (e endpoints) back(now endpoints, runtime string) endpoints {
	next := maps.Clone(e)
	left := endpoints{agentConfig: e[agentConfig]}
	for path, said := range now {
		if _, known := e[path]; !known && plain(said) == criEndpoint && path != agentConfig {
			next[path] = runtime
		}
		left[path] = next[path]
	}

	if left.used() != runtime {
		next[agentConfig] = runtime
	}
	return next
}

// change is a file of the administrator that is about to be replaced.
type change struct{ path, text string }

func (c change) write() error { return durable.Replace(c.path, []byte(c.text)) }

// changes has the places say what is here, and nothing where that was so. All are checked, none is written.
func (e endpoints) changes(root string) (all []change, err error) {
	for _, path := range places {
		text, err := readFile(root + path)
		if err != nil {
			return nil, err
		}
		if text == "" && path == agentConfig {
			return nil, fmt.Errorf("%s is missing: the agent of this node was not set up by kubeadm", path)
		}

		said, known := e[path]
		changed := text
		switch {
		case text == "":
		case strings.HasSuffix(path, ".yaml"):
			changed = withKey(text, said, known)
		case known:
			changed = withFlag(text, said)
		}
		if changed == text {
			continue
		}
		c, err := newChange(root+path, changed, plain(said))
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// withKey is a KubeletConfiguration with the key, or without it.
func withKey(text, said string, known bool) string {
	line := ""
	if known {
		line = "containerRuntimeEndpoint: " + said + "\n"
	}
	if endpointKey.MatchString(text) {
		return endpointKey.ReplaceAllLiteralString(text, line)
	}
	if !known {
		return text
	}
	return strings.TrimRight(text, "\n") + "\n" + line
}

// newChange is a file with another text. A configuration is read again.
func newChange(path, text, endpoint string) (change, error) {
	if strings.HasSuffix(path, ".yaml") {
		if got, err := configured(text); err != nil || got != endpoint {
			err = errors.Join(err, fmt.Errorf("it reads %q", got))
			const text = "%s: cannot set containerRuntimeEndpoint: is it one line of YAML? (%w)"
			return change{}, fmt.Errorf(text, path, err)
		}
	}
	return change{path, text}, nil
}

// configured is the endpoint that a KubeletConfiguration has.
func configured(text string) (string, error) {
	var config struct {
		Endpoint string `json:"containerRuntimeEndpoint"`
	}
	err := yaml.Unmarshal([]byte(text), &config)
	return config.Endpoint, err
}

// maxConfig is more than these files have.
const maxConfig = 1 << 20

// readFile reads a file of the administrator; one that is missing is empty.
func readFile(path string) (string, error) {
	data, err := boundedfile.ReadLinked(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// names reports whether a place names the endpoint.
func (e endpoints) names(endpoint string) bool {
	for _, said := range e {
		if plain(said) == endpoint {
			return true
		}
	}
	return false
}
