package interfaces

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/internal/undo"
)

// reserve has the IPAM plugin, nil for none, allocate addresses.
func reserve(c *call.Call, source addresses.Source, back *undo.Stack) (addresses.Allocation, error) {
	if source == nil {
		return addresses.Allocation{}, nil
	}
	defer c.Steps.Begin("reserve addresses")()
	return source.Reserve(c, back)
}

// dnsOf returns what the configuration has, else what comes from IPAM.
func dnsOf(configured, fromIPAM types.DNS) types.DNS {
	// An empty list is one, as in upstream's plugins: it says that there are none.
	isSet := configured.Nameservers != nil || configured.Search != nil || configured.Options != nil
	if isSet || configured.Domain != "" {
		return configured
	}
	return fromIPAM
}

// release releases what is recorded for the attachment in the network's pool, nil for none, and has another
// IPAM plugin release what it has given.
func release(c *call.Call, t *conf.Teardown, pool *ipam.Pool) (err error) {
	if pool != nil {
		err = pool.Release(c.Owner)
	}
	if other, ok := addresses.For(t.IPAMType, nil).(addresses.Delegate); ok {
		err = errors.Join(err, other.Del(c))
	}
	return err
}

// keep releases the addresses of attachments that the runtime does not have.
func keep(c *call.Call, t *conf.Teardown, pool *ipam.Pool) (err error) {
	if pool != nil {
		err = pool.Keep(t.Valid.Has)
	}
	if other, ok := addresses.For(t.IPAMType, nil).(addresses.Delegate); ok {
		err = errors.Join(err, other.GC(c))
	}
	return err
}
