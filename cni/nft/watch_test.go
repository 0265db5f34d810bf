package nft

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyDeletionsFromTheOwnTableMatter(t *testing.T) {
	// A struct nfgenmsg, and an attribute of 8 bytes with the table's name.
	body := []byte{1, 0, 0, 0, 8, 0, 1, 0, 'c', 'n', 'i', 0}
	const (
		nftables   = unix.NFNL_SUBSYS_NFTABLES << 8
		tableAdded = nftables | unix.NFT_MSG_NEWTABLE
		tableGone  = nftables | unix.NFT_MSG_DELTABLE
		ruleGone   = nftables | unix.NFT_MSG_DELRULE
	)

	for _, c := range []struct {
		table string
		kind  uint16
		body  []byte
		want  bool
	}{
		{"cni", tableGone, body, true},
		{"cni", ruleGone, body, true},
		{"cni", tableAdded, body, false},
		{"other", tableGone, body, false},
		{"cni", tableGone, body[:3], false},
	} {
		if got := DeletesFrom(c.table, c.kind, c.body); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
