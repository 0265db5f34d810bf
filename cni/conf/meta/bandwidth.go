// Package meta reads the configurations of the plugins that come after a main plugin in the chain: upstream
// calls them meta plugins.
package meta

import (
	"math"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/shaping"
)

// bandwidthKeys are rates in bits per second and bursts in bits.
type bandwidthKeys struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// Bandwidth is the configuration of bandwidth.
type Bandwidth struct{ Ingress, Egress shaping.Limit }

// ReadBandwidth reads the configuration of bandwidth: what the configuration names, or else what the
// runtime asks for.
func ReadBandwidth(stdin []byte) (b Bandwidth, err error) {
	var k struct {
		bandwidthKeys
		RuntimeConfig struct {
			Bandwidth *bandwidthKeys `json:"bandwidth"`
		} `json:"runtimeConfig"`
	}
	if err := conf.Decode(stdin, &k); err != nil {
		return b, err
	}

	limits := k.bandwidthKeys
	if limits == (bandwidthKeys{}) && k.RuntimeConfig.Bandwidth != nil {
		limits = *k.RuntimeConfig.Bandwidth
	}

	if b.Ingress, err = limit("ingress", limits.IngressRate, limits.IngressBurst); err != nil {
		return b, err
	}

	b.Egress, err = limit("egress", limits.EgressRate, limits.EgressBurst)
	return b, err
}

func limit(direction string, rate, burst uint64) (l shaping.Limit, err error) {
	switch {
	case (rate == 0) != (burst == 0):
		return l, conf.Invalid("%sRate and %sBurst are there together or not at all", direction, direction)
	case rate != 0 && rate < 8:
		return l, conf.Invalid("%sRate %d is less than a byte per second", direction, rate)
	case burst/8 >= math.MaxUint32:
		return l, conf.Invalid("%sBurst %d is not less than 4 GiB", direction, burst)
	}
	return shaping.Limit{Rate: rate, Burst: burst}, nil
}
