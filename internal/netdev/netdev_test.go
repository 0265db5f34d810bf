package netdev

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded is what Linux 6.18 shows in a pod, without some of its spaces.
const recorded = `Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier
    lo:  216       4    0    0    0     0          0         0   216       4    0    0    0     0       0  0
  eth0: 1296      16    1    2    0     0          0         7   876      10    3    4    0     0       0  0
`

func all(string) bool { return true }

func TestCountersAreThoseOfTheirColumns(t *testing.T) {
	want := []Interface{{
		Name: "eth0",
		Received: Traffic{
			Bytes:   1296,
			Packets: 16,
			Errors:  1,
			Dropped: 2,
		},
		Sent: Traffic{
			Bytes:   876,
			Packets: 10,
			Errors:  3,
			Dropped: 4,
		},
	}}
	got := Parse([]byte(recorded), func(name string) bool { return name != "lo" }, 9)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInterfacesHaveABound(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "  tap%d: %s\n", i, strings.Repeat("1 ", columns))
	}
	if got := Parse([]byte(text.String()), all, 64); len(got) != 64 {
		t.Errorf("%d interfaces", len(got))
	}
}

func TestInterfaceWithANameThatNoMessageCanCarryIsLeftOut(t *testing.T) {
	counters := ": " + strings.Repeat("1 ", columns) + "\n"
	got := Parse([]byte("  a\xff"+counters+"  b"+counters), all, 9)
	if len(got) != 1 || got[0].Name != "b" {
		t.Errorf("interfaces %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("eth0:1 2 3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := Parse(text, all, 3); len(got) > 3 {
			t.Errorf("%d interfaces", len(got))
		}
	})
}
