package rtnl

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

func TestRuleIsReadAsTheKernelSendsIt(t *testing.T) {
	body := []byte{unix.AF_INET, 0, 32, 0, 100, 0, 0, 1, 0, 0, 0, 0}
	body = append(body, "\x08\x00\x02\x00\x0a\x00\x00\x05"+"\x08\x00\x0f\x00\x2c\x01\x00\x00"...)
	want := Rule{Src: netip.MustParsePrefix("10.0.0.5/32"), Table: 300}
	if got := parseRule(body); got != want {
		t.Errorf("%+v", got)
	}
}

// Other programs make rules, disciplines and VLANs, too.
func FuzzParseWhatOthersMake(f *testing.F) {
	f.Add([]byte("\x08\x00\x01\x00tbf\x00" + "\x0c\x00\x02\x00\x08\x00\x01\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x0c\x00\x1a\x80\x08\x00\x02\x00\x02\x00\x64\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseTokenBucket(data)
		for _, v := range parseVLANs(data) {
			if v.First != v.Last {
				t.Errorf("%+v", v)
			}
		}
		if len(data) >= unix.SizeofRtMsg {
			parseRule(data)
			parseRoute(data)
		}

		netlink.Attributes(data, func(uint16, []byte) {})
	})
}
