package config

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// Flags are kubelet's. Read lays those that were given over the configuration files.
type Flags struct {
	given []given // in the order of the command line
}

type given struct{ name, text string }

// frame are flags of every program of the project.
var frame = map[string]bool{"version": true, "help": true}

// Register adds the flags to the set.
func Register(set *flag.FlagSet) *Flags {
	f := &Flags{}
	for _, row := range flagRows {
		if frame[row.name] {
			continue
		}

		add := func(text string) error {
			f.given = append(f.given, given{row.name, text})
			return nil
		}
		if row.boolean() {
			set.BoolFunc(row.name, row.usage(), add)
		} else {
			set.Func(row.name, row.usage(), add)
		}
	}

	return f
}

// Normalize writes the names of flags with dashes, as kubelet takes both: --node_ip is --node-ip.
func Normalize(args []string) []string {
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}

		name, value, hasValue := strings.Cut(arg, "=")
		if !strings.HasPrefix(name, "--") {
			continue
		}

		out[i] = strings.ReplaceAll(name, "_", "-")
		if hasValue {
			out[i] += "=" + value
		}
	}

	return out
}

// result is what the flag does, and why if that is nothing.
func (r flagRow) result() (Effect, string) {
	if r.field == "" {
		return r.effect, r.help
	}
	top, _, _ := strings.Cut(r.field, ".")
	for _, f := range fields {
		if f.name == top {
			return f.effect, f.note
		}
	}
	return Refused, "no such field"
}

func (r flagRow) usage() string {
	switch effect, note := r.result(); effect {
	case NoEffect:
		return "accepted, no effect: " + note
	case Refused:
		return "only with kubelet's default: " + note
	}
	return r.help
}

// boolean reports whether the flag may stand alone, meaning true.
func (r flagRow) boolean() bool {
	switch r.name {
	case "exit-on-lock-contention", "experimental-allocatable-ignore-eviction":
		return true
	}

	p, err := (&kubeletconfig.Configuration{}).Field(r.field)
	if r.field == "" || err != nil {
		return false
	}

	switch p.(type) {
	case *bool, **bool:
		return true
	}

	return false
}

// last is the value of a flag that does not change the configuration of kubelet, empty if it was not given.
func (f *Flags) last(name string) (text string) {
	for _, g := range f.given {
		if g.name == name {
			text = g.text
		}
	}
	return text
}

// secretFlag may hold credentials, which /flagz must not show.
const secretFlag = "manifest-url-header"

// apply lays the flags that were given over c.
func (f *Flags) apply(c *settings) error {
	c.Flags = map[string]string{}
	for _, g := range f.given {
		c.Flags[g.name] = g.text
	}

	if c.Flags[secretFlag] != "" {
		c.Flags[secretFlag] = "CLASSIFIED"
	}

	seen := map[string]bool{}
	for _, g := range f.given {
		if err := c.setFlag(g.name, g.text, !seen[g.name]); err != nil {
			return fmt.Errorf("--%s=%s: %w", g.name, g.text, err)
		}

		seen[g.name] = true
	}

	return nil
}

// setFlag sets what a flag stands for. The first of several lists of one flag replaces that of the file.
func (c *settings) setFlag(name, text string, first bool) error {
	row := findFlag(name)
	if row.field != "" {
		p, err := c.Kubelet.Field(row.field)
		if err != nil {
			return err
		}

		return set(p, text, first)
	}

	switch row.effect {
	case NoEffect:
		c.Notices = append(c.Notices, fmt.Sprintf("flag --%s has no effect here: %s", name, row.help))
		return nil
	case Refused:
		return fmt.Errorf("not served: %s", row.help)
	}

	return c.setOwn(name, text)
}

func findFlag(name string) flagRow {
	for _, row := range flagRows {
		if row.name == name {
			return row
		}
	}
	return flagRow{}
}

// setOwn sets what only a flag can say.
func (c *settings) setOwn(name, text string) (err error) {
	switch name {
	case "kubeconfig":
		c.Kubeconfig = text
	case "bootstrap-kubeconfig":
		c.Bootstrap = text
	case "cert-dir":
		c.CertDir = text
	case "root-dir":
		c.RootDir = text
	case "hostname-override":
		c.NodeName = text
	case "node-ip":
		c.NodeIPs, err = parseIPs(text)
	case "node-labels":
		c.Labels = addLabels(c.Labels, text)
	case "cloud-provider":
		c.CloudProvider = text
	case "experimental-allocatable-ignore-eviction":
		err = set(&c.IgnoreEviction, text, true)
	case "minimum-container-ttl-duration":
		c.Ended.MinAge, err = time.ParseDuration(text)
	case "maximum-dead-containers-per-container":
		c.Ended.PerContainer, err = strconv.Atoi(text)
	case "maximum-dead-containers":
		c.Ended.Total, err = strconv.Atoi(text)
	}

	return err
}
