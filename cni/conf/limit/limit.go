// Package limit reads the limits of a container's traffic, as CNI's conventions write them: rates in bits
// per second and bursts in bits.
package limit

import (
	"fmt"
	"math"

	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/shaping"
)

// Keys are the limits as they are written.
type Keys struct {
	IngressRate  uint64
	IngressBurst uint64
	EgressRate   uint64
	EgressBurst  uint64
}

// Read reads the keys.
func (k *Keys) Read(o document.Object) {
	o.Read("ingressRate", &k.IngressRate)
	o.Read("ingressBurst", &k.IngressBurst)
	o.Read("egressRate", &k.EgressRate)
	o.Read("egressBurst", &k.EgressBurst)
}

// Limits are those for what a container receives and sends.
type Limits struct{ Ingress, Egress shaping.Limit }

// AreZero reports whether there are none.
func (l Limits) AreZero() bool { return l.Ingress.IsZero() && l.Egress.IsZero() }

// Limits checks and returns the limits.
func (k Keys) Limits() (l Limits, err error) {
	if l.Ingress, err = parse("ingress", k.IngressRate, k.IngressBurst); err != nil {
		return l, err
	}
	l.Egress, err = parse("egress", k.EgressRate, k.EgressBurst)
	return l, err
}

func parse(direction string, rate, burst uint64) (l shaping.Limit, err error) {
	switch {
	case (rate == 0) != (burst == 0):
		return l, fmt.Errorf("%sRate and %sBurst are there together or not at all", direction, direction)
	case rate != 0 && rate < 8:
		return l, fmt.Errorf("%sRate %d is less than a byte per second", direction, rate)
	case burst/8 >= math.MaxUint32:
		return l, fmt.Errorf("%sBurst %d is not less than 4 GiB", direction, burst)
	}
	return shaping.Limit{Rate: rate, Burst: burst}, nil
}
