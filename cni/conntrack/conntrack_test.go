package conntrack

import (
	"net/netip"
	"testing"
)

// What the kernel says about a connection is what its two ends have sent.
func FuzzParse(f *testing.F) {
	const addresses = "\x14\x00\x01\x80\x08\x00\x01\x00\x0a\x00\x00\x01\x08\x00\x02\x00\x0a\x00\x00\x02"
	const protocol = "\x14\x00\x02\x80\x05\x00\x01\x00\x11\x00\x00\x00\x06\x00\x03\x00\x00\x35\x00\x00"
	whole := "\x02\x00\x00\x00" + "\x2c\x00\x01\x80" + addresses + protocol
	c := parse([]byte(whole))
	if c.Protocol != 17 || c.Port != 53 || c.Address != netip.MustParseAddr("10.0.0.2") {
		f.Fatalf("%+v", c)
	}

	f.Add([]byte(whole))
	f.Add([]byte(whole[:20]))
	f.Fuzz(func(_ *testing.T, body []byte) { parse(body) })
}

func TestConnectionsAreForgottenByTheirFirstDestination(t *testing.T) {
	ports := []Port{
		{Number: 53},
		{Address: netip.MustParseAddr("192.0.2.1"), Number: 67},
		{Number: 68, Pod: netip.MustParseAddr("10.1.0.2")},
		{Number: 69, Pod: netip.MustParseAddr("10.1.0.3")},
	}

	for _, c := range []struct {
		protocol byte
		address  string
		port     uint16
		want     bool
	}{
		{17, "10.0.0.1", 53, true},
		{6, "10.0.0.1", 53, false},
		{17, "10.0.0.1", 54, false},
		{17, "192.0.2.1", 67, true},
		{17, "10.0.0.1", 67, false},
		{17, "10.0.0.1", 68, true},
		{17, "10.0.0.1", 69, false},
	} {
		d := Connection{
			Protocol:  c.protocol,
			Address:   netip.MustParseAddr(c.address),
			Port:      c.port,
			Answering: netip.MustParseAddr("10.1.0.2"),
		}
		if got := d.isTo(ports); got != c.want {
			t.Errorf("%+v: %v", d, got)
		}
	}
}

// A tuple of connection tracking, as the kernel sends it behind the header: IP with source and destination,
// and protocol with its number and the ports.
const tuple = "\x02\x00\x00\x00" + "\x34\x00\x01\x80" +
	"\x14\x00\x01\x80" + "\x08\x00\x01\x00\xc0\x00\x02\x07" + "\x08\x00\x02\x00\xc0\x00\x02\x01" +
	"\x1c\x00\x02\x80" + "\x05\x00\x01\x00\x11\x00\x00\x00" + "\x06\x00\x02\x00\x30\x39\x00\x00" +
	"\x06\x00\x03\x00\x00\x35\x00\x00"

// answered has that of the answer, which comes from a pod, and an identity.
const answered = tuple + "\x18\x00\x02\x80" +
	"\x14\x00\x01\x80" + "\x08\x00\x01\x00\x0a\x01\x00\x09" + "\x08\x00\x02\x00\xc0\x00\x02\x07" +
	"\x08\x00\x0c\x00\x01\x02\x03\x04"

func TestParseTuple(t *testing.T) {
	got := parse([]byte(tuple))
	if got.Protocol != 17 || got.Address != netip.MustParseAddr("192.0.2.1") || got.Port != 53 {
		t.Errorf("%+v", got)
	}

	got = parse([]byte(answered))
	if got.Address != netip.MustParseAddr("192.0.2.1") || got.Source != netip.MustParseAddr("192.0.2.7") ||
		got.Answering != netip.MustParseAddr("10.1.0.9") || string(got.id) != "\x01\x02\x03\x04" {
		t.Errorf("%+v", got)
	}
	for i := range len(answered) {
		parse([]byte(answered[:i]))
	}
}
