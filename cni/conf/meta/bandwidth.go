// Package meta reads the configurations of the plugins that come after a main plugin in the chain: upstream
// calls them meta plugins.
package meta

import (
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/limit"
)

// ReadBandwidth reads the configuration of bandwidth: what the configuration names, or else what the runtime
// asks for.
func ReadBandwidth(stdin []byte) (l limit.Limits, err error) {
	var k struct {
		limit.Keys
		RuntimeConfig struct {
			Bandwidth *limit.Keys `json:"bandwidth"`
		} `json:"runtimeConfig"`
	}
	if err := conf.Decode(stdin, &k); err != nil {
		return l, err
	}

	keys := k.Keys
	if keys == (limit.Keys{}) && k.RuntimeConfig.Bandwidth != nil {
		keys = *k.RuntimeConfig.Bandwidth
	}
	if l, err = keys.Limits(); err != nil {
		return l, conf.Invalid("%w", err)
	}

	return l, nil
}
