package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/tuning"
)

// defaultTuningDir is where upstream's tuning keeps what interfaces had before.
const defaultTuningDir = "/run/cni/tuning"

// interfaceKeys are what tuning changes, in the configuration and in args.cni.
type interfaceKeys struct {
	Sysctl   sysctls
	MAC      *string
	Promisc  *bool
	MTU      *int
	AllMulti *bool
	TxQLen   *int
}

func (k *interfaceKeys) read(o document.Object) {
	o.Read("sysctl", &k.Sysctl)
	o.Read("mac", &k.MAC)
	o.Read("promisc", &k.Promisc)
	o.Read("mtu", &k.MTU)
	o.Read("allmulti", &k.AllMulti)
	o.Read("txQLen", &k.TxQLen)
}

// tuningKeys are those of tuning.
type tuningKeys struct {
	interfaceKeys
	DataDir    string
	RuntimeMAC string
	// Args are args.cni.
	Args interfaceKeys
}

func (k *tuningKeys) read(o document.Object) {
	k.interfaceKeys.read(o)
	o.Read("dataDir", &k.DataDir)
	o.Object("runtimeConfig").Read("mac", &k.RuntimeMAC)
	k.Args.read(o.Object("args").Object("cni"))
}

// Tuning is the configuration of tuning.
type Tuning struct {
	Settings tuning.Settings
	Backups  tuning.Backups
}

// ReadTuning reads the configuration of tuning. args is CNI_ARGS.
func ReadTuning(stdin []byte, args string) (*Tuning, error) {
	var k tuningKeys
	if err := conf.Decode(stdin, k.read); err != nil {
		return nil, err
	}

	parsed, err := conf.ParseArgs(args)
	if err != nil {
		return nil, err
	}

	// The last that names one counts.
	for _, mac := range []string{parsed.MAC, k.RuntimeMAC} {
		if mac != "" {
			k.MAC = &mac
		}
	}

	k.interfaceKeys.override(k.Args)
	settings, err := k.interfaceKeys.settings()
	if err != nil {
		return nil, err
	}

	return &Tuning{Settings: settings, Backups: tuningBackups(k.DataDir)}, nil
}

// ReadTuningBackups returns where DEL and GC find what interfaces had before.
func ReadTuningBackups(stdin []byte) (tuning.Backups, error) {
	o, err := conf.DecodeLeniently(stdin)
	var dir string
	o.Read("dataDir", &dir)
	return tuningBackups(dir), err
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
