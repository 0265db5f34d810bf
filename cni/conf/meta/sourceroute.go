package meta

import (
	"net/netip"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/sourceroute"
)

// ReadSourceRoutes reads the configuration of sbr.
func ReadSourceRoutes(stdin []byte) (c sourceroute.Config, err error) {
	var k struct {
		Table          *int     `json:"table"`
		Gateways       []string `json:"gateways"`
		AddSourceHints bool     `json:"addSourceHints"`
	}
	if err := conf.Decode(stdin, &k); err != nil {
		return c, err
	}

	c.SourceHints = k.AddSourceHints
	if k.Table != nil {
		if c.Table = *k.Table; c.Table < 1 {
			return c, conf.Invalid("table %d is not the number of a routing table", c.Table)
		}
	}

	for _, text := range k.Gateways {
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
	var k struct {
		Table int `json:"table"`
	}
	err = conf.DecodeLeniently(stdin, &k)
	return k.Table, err
}
