package meta

import (
	"net/netip"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/sourceroute"
)

// ReadSourceRoutes reads the configuration of sbr.
func ReadSourceRoutes(stdin []byte) (c sourceroute.Config, err error) {
	var table *int
	var gateways []string
	err = conf.Decode(stdin, func(o document.Object) {
		o.Read("table", &table)
		o.Read("gateways", &gateways)
		o.Read("addSourceHints", &c.SourceHints)
	})
	if err != nil {
		return c, err
	}

	if table != nil {
		if c.Table = *table; c.Table < 1 {
			return c, conf.Invalid("table %d is not the number of a routing table", c.Table)
		}
	}

	for _, text := range gateways {
		g, err := netip.ParseAddr(text)
		if err != nil {
			return c, conf.Invalid("gateways: %w", err)
		}

		g = g.Unmap()
		for _, other := range c.Gateways {
			if prefix.SameFamily(g, other) {
				const format = "gateways: %s and %s are of one family, which has one gateway"
				return c, conf.Invalid(format, other, g)
			}
		}

		c.Gateways = append(c.Gateways, g)
	}

	return c, nil
}

// ReadSourceTable reads the table that DEL needs; 0 when the configuration names none.
func ReadSourceTable(stdin []byte) (table int, err error) {
	o, err := conf.DecodeLeniently(stdin)
	o.Read("table", &table)
	return table, err
}
