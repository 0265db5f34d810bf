package enforcer

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cni/netd/policies"
	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/hold"
)

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestPodsOfTheNodeHaveTheAddressesThatThePluginRecorded(t *testing.T) {
	pod := func(name, uid, node string, ips ...string) policies.Pod {
		return policies.Pod{
			Pod:  policy.Pod{Namespace: "ns", Name: name, Addresses: addresses(ips...)},
			UID:  uid,
			Node: node,
		}
	}
	record := func(name, uid, ip string) hold.Record {
		return hold.Record{
			Namespace: "ns",
			Pod:       name,
			UID:       uid,
			Addresses: addresses(ip),
		}
	}

	static := pod("static", "api", "here")
	static.Mirror = "hash"
	joined := join(
		[]policies.Pod{
			pod("new", "1", "here"),
			pod("again", "2", "here", "10.0.0.9"),
			pod("former", "3", "here", "10.0.0.3"),
			pod("far", "4", "there", "10.0.1.1"),
			static,
		},
		[]hold.Record{
			record("new", "1", "10.0.0.1"),
			record("again", "old", "10.0.0.2"),
			record("static", "hash", "10.0.0.4"),
			record("gone", "5", "10.0.0.5"),
		},
		"here",
	)

	var got []string
	for _, p := range joined {
		got = append(got, fmt.Sprint(p.Name, p.Addresses, " local ", p.Local, " unknown ", p.Unknown))
	}
	want := []string{
		"again[10.0.0.2] local true unknown true",
		"gone[10.0.0.5] local true unknown true",
		"new[10.0.0.1] local true unknown false",
		"static[10.0.0.4] local true unknown false",
		"again[10.0.0.9] local true unknown false",
		"far[10.0.1.1] local false unknown false",
		"former[10.0.0.3] local true unknown false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
