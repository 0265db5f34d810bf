package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/tuning"
)

// defaultTuningDir is where upstream's tuning keeps what interfaces had before.
const defaultTuningDir = "/run/cni/tuning"

// interfaceKeys are what tuning changes, in the configuration and in args.cni.
type interfaceKeys struct {
	Sysctl   sysctls `json:"sysctl"`
	MAC      *string `json:"mac"`
	Promisc  *bool   `json:"promisc"`
	MTU      *int    `json:"mtu"`
	AllMulti *bool   `json:"allmulti"`
	TxQLen   *int    `json:"txQLen"`
}

// Tuning is the configuration of tuning.
type Tuning struct {
	Settings tuning.Settings
	Backups  tuning.Backups
}

// ReadTuning reads the configuration of tuning. args is CNI_ARGS.
func ReadTuning(stdin []byte, args string) (*Tuning, error) {
	var k struct {
		interfaceKeys
		DataDir       string `json:"dataDir"`
		RuntimeConfig struct {
			MAC string `json:"mac"`
		} `json:"runtimeConfig"`
		Args struct {
			CNI interfaceKeys `json:"cni"`
		} `json:"args"`
	}
	if err := conf.Decode(stdin, &k); err != nil {
		return nil, err
	}

	parsed, err := conf.ParseArgs(args)
	if err != nil {
		return nil, err
	}

	// The last that names one counts.
	for _, mac := range []string{parsed.MAC, k.RuntimeConfig.MAC} {
		if mac != "" {
			k.MAC = &mac
		}
	}

	k.interfaceKeys.override(k.Args.CNI)
	settings, err := k.interfaceKeys.settings()
	if err != nil {
		return nil, err
	}

	return &Tuning{Settings: settings, Backups: tuningBackups(k.DataDir)}, nil
}

// ReadTuningBackups returns where DEL and GC find what interfaces had before.
func ReadTuningBackups(stdin []byte) (tuning.Backups, error) {
	var k struct {
		DataDir string `json:"dataDir"`
	}
	err := conf.DecodeLeniently(stdin, &k)
	return tuningBackups(k.DataDir), err
}

func tuningBackups(dir string) tuning.Backups {
	if dir == "" {
		dir = defaultTuningDir
	}
	return tuning.Backups{Dir: dir}
}

// override takes over what other names.
func (k *interfaceKeys) override(other interfaceKeys) {
	for _, setting := range other.Sysctl {
		k.Sysctl = k.Sysctl.with(setting)
	}
	k.MAC = firstOf(other.MAC, k.MAC)
	k.Promisc = firstOf(other.Promisc, k.Promisc)
	k.MTU = firstOf(other.MTU, k.MTU)
	k.AllMulti = firstOf(other.AllMulti, k.AllMulti)
	k.TxQLen = firstOf(other.TxQLen, k.TxQLen)
}

func firstOf[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func (k interfaceKeys) settings() (s tuning.Settings, err error) {
	s.Sysctls = k.Sysctl
	s.AllMulticast = k.AllMulti
	s.TxQueueLength = k.TxQLen
	if k.Promisc != nil {
		s.Promiscuous = *k.Promisc
	}
	if k.MTU != nil {
		s.MTU = *k.MTU
	}
	if k.MAC != nil && *k.MAC != "" {
		if s.MAC, err = net.ParseMAC(*k.MAC); err != nil {
			return s, conf.Invalid("mac: %w", err)
		}
	}

	switch {
	case s.MTU < 0 || s.MTU > conf.MaxMTU:
		return s, conf.Invalid("mtu %d is not within 0 and %d", s.MTU, conf.MaxMTU)
	case s.TxQueueLength != nil && *s.TxQueueLength < 0:
		return s, conf.Invalid("txQLen %d is negative", *s.TxQueueLength)
	}

	return s, nil
}

// sysctls is a JSON object whose order counts, and whose keys are there once each.
type sysctls []tuning.Sysctl

// UnmarshalJSON reads the object.
func (s *sysctls) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	begin, err := d.Token()
	if err != nil || begin == nil {
		return err
	}
	if begin != json.Delim('{') {
		return errors.New("sysctl is not an object")
	}

	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}

		var value string
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("sysctl %v: %w", key, err)
		}

		name := fmt.Sprint(key)
		spelt := strings.ReplaceAll(name, "/", ".")
		if seen[spelt] {
			return fmt.Errorf("sysctl %s is there twice", name)
		}

		seen[spelt] = true
		*s = append(*s, tuning.Sysctl{Key: name, Value: value})
	}

	return nil
}

// with returns the settings with another value of one, or one more.
func (s sysctls) with(other tuning.Sysctl) sysctls {
	for i := range s {
		if s[i].Key == other.Key {
			s[i].Value = other.Value
			return s
		}
	}
	return append(s, other)
}
