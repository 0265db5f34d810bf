// Package conf reads CNI network configurations: the keys of upstream's bridge, host-local and portmap
// plugins with the same meaning, and a few of our own. It checks everything once and returns typed values.
// What is not supported is refused by name, never ignored.
package conf

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/trivet-node/trivet/cni/conf/document"
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
	CNIVersion string
	Name       string
	// Type is that of the main plugin, in a call of the IPAM plugin too.
	Type string
	// IPAMType is that of the plugin that gives addresses.
	IPAMType string
	// PrevResult is nil when the runtime sent none.
	PrevResult json.RawMessage
}

// ReadHead reads the head of any configuration, whatever else is in it: the rest may be another plugin's, or
// of an operation that can do without. Types that are not text count as absent.
func ReadHead(stdin []byte) (h Head, err error) {
	o, err := DecodeLeniently(stdin)
	if err != nil {
		return h, err
	}

	o.Read("cniVersion", &h.CNIVersion)
	o.Read("name", &h.Name)
	if err := o.Err(); err != nil {
		return h, decodeError(err)
	}

	o.Read("type", &h.Type)
	o.Object("ipam").Read("type", &h.IPAMType)
	h.PrevResult = o.Raw("prevResult")
	return h, nil
}

// Decode reads the JSON of a configuration; read reads its keys. A value of a wrong type is an error.
func Decode(stdin []byte, read func(document.Object)) error {
	o, err := document.Parse(stdin)
	if err == nil {
		read(o)
		err = o.Err()
	}
	return decodeError(err)
}

// DecodeLeniently returns the JSON of a configuration for a caller to whom a value of a wrong type is as good
// as none.
func DecodeLeniently(stdin []byte) (document.Object, error) {
	o, err := document.Parse(stdin)
	return o, decodeError(err)
}

func decodeError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDecode, err)
}

// Invalid returns an ErrInvalid.
func Invalid(format string, values ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, values...))
}
