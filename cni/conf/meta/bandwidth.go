// Package meta reads the configurations of the plugins that come after a main plugin in the chain: upstream
// calls them meta plugins.
package meta

import (
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/conf/limit"
)

// ReadBandwidth reads the configuration of bandwidth: what the configuration names, or else what the runtime
// asks for.
func ReadBandwidth(stdin []byte) (l limit.Limits, err error) {
	var keys, asked limit.Keys
	err = conf.Decode(stdin, func(o document.Object) {
		keys.Read(o)
		asked.Read(o.Object("runtimeConfig").Object("bandwidth"))
	})
	if err != nil {
		return l, err
	}

	if keys == (limit.Keys{}) {
		keys = asked
	}
	if l, err = keys.Limits(); err != nil {
		return l, conf.Invalid("%w", err)
	}

	return l, nil
}
