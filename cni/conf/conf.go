// Package conf reads CNI network configurations: the keys of upstream's bridge, host-local and portmap
// plugins with the same meaning, and a few of our own. It checks everything once and returns typed values.
// What is not supported is refused by name, never ignored.
package conf

import (
	"encoding/json"
	"errors"
	"fmt"
)

// What can be wrong with a configuration. Every error of this package is one of these.
var (
	// ErrDecode means that the configuration is not JSON, or has a value of a wrong type.
	ErrDecode = errors.New("network configuration cannot be decoded")
	// ErrInvalid means that a value does not make sense.
	ErrInvalid = errors.New("invalid network configuration")
	// ErrUnsupported means that upstream has a key, or a value of it, that this plugin does not have.
	ErrUnsupported = errors.New("not supported")
)

// Head is what says which plugin and which network a configuration is for.
type Head struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	// Type is that of the main plugin, in a call of the IPAM plugin too.
	Type string `json:"type"`
	IPAM struct {
		Type string `json:"type"`
	} `json:"ipam"`
	// PrevResult is nil when the runtime sent none.
	PrevResult json.RawMessage `json:"prevResult"`
}

// ReadHead reads the head of any configuration, whatever else is in it: the rest may be another plugin's, or
// of an operation that can do without. A value of a wrong type counts as absent.
func ReadHead(stdin []byte) (Head, error) {
	var h Head
	err := DecodeLeniently(stdin, &h)
	if string(h.PrevResult) == "null" {
		h.PrevResult = nil
	}
	return h, err
}

// Decode reads the JSON of a configuration. A value of a wrong type is an error.
func Decode(stdin []byte, keys any) error {
	if err := json.Unmarshal(stdin, keys); err != nil {
		return fmt.Errorf("%w: %w", ErrDecode, err)
	}
	return nil
}

// DecodeLeniently is Decode where a value of a wrong type counts as absent.
func DecodeLeniently(stdin []byte, keys any) error {
	err := json.Unmarshal(stdin, keys)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok || err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDecode, err)
}

// Invalid returns an ErrInvalid.
func Invalid(format string, values ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, values...))
}
