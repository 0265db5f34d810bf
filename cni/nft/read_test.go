package nft

import (
	"strings"
	"testing"

	"github.com/google/nftables"
)

// rule is one of a chain PREROUTING of the table nat, which compares iifname with veth0 and has a comment,
// as the kernel sends it.
const rule = "\x07\x00\x00\x00" +
	"\x08\x00\x01\x00nat\x00" +
	"\x0f\x00\x02\x00PREROUTING\x00\x00" +
	"\x0c\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x05" +
	"\x54\x00\x04\x80" +
	"\x14\x00\x01\x80" + "\x09\x00\x01\x00meta\x00\x00\x00\x00" + "\x04\x00\x02\x80" +
	"\x3c\x00\x01\x80" + "\x08\x00\x01\x00cmp\x00" + "\x30\x00\x02\x80" +
	"\x08\x00\x01\x00\x00\x00\x00\x01" + "\x08\x00\x02\x00\x00\x00\x00\x00" +
	"\x18\x00\x03\x80" + "\x14\x00\x01\x00veth0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x04\x00\x00\x00" +
	"\x0c\x00\x07\x00\x00\x06hello\x00"

func TestParseRule(t *testing.T) {
	table, r := parseRule([]byte(rule))
	if table != "nat" || r.Chain != "PREROUTING" || r.Handle != 5 || r.Comment != "hello" ||
		r.Interface != "veth0" || r.Verdict != nil {
		t.Errorf("%s: %+v", table, r)
	}
	if want := "meta | cmp 1:8 3:7665746830" + strings.Repeat("00", 11); r.Text() != want {
		t.Errorf("%q, want %q", r.Text(), want)
	}
}

// baseChain is the chain ingress of the table t at the hook forward (2), with a priority of -5 and the policy
// to drop, as the kernel sends it.
const baseChain = "\x01\x00\x00\x00" +
	"\x06\x00\x01\x00t\x00\x00\x00" +
	"\x0c\x00\x03\x00ingress\x00" +
	"\x14\x00\x04\x80" + "\x08\x00\x01\x00\x00\x00\x00\x02" + "\x08\x00\x02\x00\xff\xff\xff\xfb" +
	"\x08\x00\x05\x00\x00\x00\x00\x00" +
	"\x08\x00\x06\x00\x00\x00\x00\x03"

func TestParseChain(t *testing.T) {
	c := parseChain([]byte(baseChain))
	want := Base{Hook: 2, Priority: -5, Policy: nftables.ChainPolicyDrop}
	if c.table != "t" || c.name != "ingress" || c.rules != 3 || c.base == nil || *c.base != want {
		t.Errorf("%+v, %+v", c, c.base)
	}

	withoutHook := baseChain[:24] + baseChain[44:]
	if c := parseChain([]byte(withoutHook)); c.base != nil || c.rules != 3 {
		t.Errorf("without a hook: %+v", c)
	}
}

// What is in the kernel is not only ours: another program may have put it there.
func FuzzParseRule(f *testing.F) {
	f.Add([]byte(rule))
	f.Add([]byte(baseChain))
	f.Fuzz(func(_ *testing.T, body []byte) {
		_, r := parseRule(body)
		_ = r.Text()
		parseChain(body)
	})
}

func TestCommentIsReadAsItWasWritten(t *testing.T) {
	for _, text := range []string{"", "a", "name: x, id: y"} {
		if got := parseComment(Comment(text)); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
	}

	long := string(make([]byte, 300))
	if got := Comment(long); len(got) != 2+maxComment+1 {
		t.Errorf("%d bytes", len(got))
	}
}
