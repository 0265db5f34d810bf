package hostnat

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"github.com/trivet-node/trivet/cni/nft"
)

// An element of a map of ports with a comment, as the kernel sends it behind the header.
const element = "\x02\x00\x00\x00" + "\x38\x00\x03\x80" + "\x34\x00\x01\x80" +
	"\x10\x00\x01\x80" + "\x0c\x00\x01\x00" + "\x06\x00\x00\x00\x1f\x90\x00\x00" +
	"\x10\x00\x02\x80" + "\x0c\x00\x01\x00" + "\x0a\x58\x00\x02\x00\x50\x00\x00" +
	"\x0f\x00\x06\x00" + "\x01\x02xx" + "\x00\x05a/e0\x00\x00"

func TestParseElements(t *testing.T) {
	got := nft.ParseElements([]byte(element))
	want := []nftables.SetElement{
		{
			Key:     []byte("\x06\x00\x00\x00\x1f\x90\x00\x00"),
			Val:     []byte("\x0a\x58\x00\x02\x00\x50\x00\x00"),
			Comment: "a/e0",
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What is in the kernel is not only ours: another program may have put it there.
func FuzzParseElements(f *testing.F) {
	f.Add([]byte(element))
	want := newRuleset(Config{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, e := range nft.ParseElements(body) {
			for _, family := range want.families {
				checkElement(t, family, e)
			}
		}
	})
}

func checkElement(t *testing.T, f *family, e nftables.SetElement) {
	t.Helper()
	for _, s := range f.perPod() {
		pod := f.podOf(s, e)
		if pod.IsValid() && pod.BitLen() != 8*f.Size {
			t.Errorf("%+v in %s is of %s", e, s.Name, pod)
		}
		p, ok := f.udpPort(s, e)
		if ok && (p.Protocol != "udp" || s == f.hairpin) {
			t.Errorf("%+v in %s is %s", e, s.Name, p)
		}
	}
}
