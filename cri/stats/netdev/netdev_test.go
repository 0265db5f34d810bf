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

func TestCountersAreThoseOfTheirColumns(t *testing.T) {
	want := []Interface{{
		Name:      "eth0",
		RxBytes:   1296,
		RxPackets: 16,
		RxErrors:  1,
		RxDropped: 2,
		TxBytes:   876,
		TxPackets: 10,
		TxErrors:  3,
		TxDropped: 4,
	}}
	if diff := cmp.Diff(want, parse([]byte(recorded))); diff != "" {
		t.Error(diff)
	}
}

func TestInterfacesHaveABound(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "  tap%d: %s\n", i, strings.Repeat("1 ", columns))
	}
	if got := parse([]byte(text.String())); len(got) != maxInterfaces {
		t.Errorf("%d interfaces", len(got))
	}
}

func TestInterfaceWithANameThatNoMessageCanCarryIsLeftOut(t *testing.T) {
	counters := ": " + strings.Repeat("1 ", columns) + "\n"
	got := parse([]byte("  a\xff" + counters + "  b" + counters))
	if len(got) != 1 || got[0].Name != "b" {
		t.Errorf("interfaces %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("eth0:1 2 3"))
	f.Fuzz(func(_ *testing.T, text []byte) { parse(text) })
}
