package address

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestAMachineHasAnAddressOfEachFamilyOfTheCluster(t *testing.T) {
	for _, c := range []struct {
		stack Stack
		ip    netip.Addr
		want  string
	}{
		{Stack{}, Node(1), "[10.99.1.2]"},
		{Stack{Dual: true}, Node(1), "[10.99.1.2 fd00:10:99::1:2]"},
		{Stack{Dual: true}, Node(199), "[10.99.1.200 fd00:10:99::1:c8]"},
		{Stack{Dual: true}, ControlPlane, "[10.99.0.1 fd00:10:99::1]"},
	} {
		if got := fmt.Sprint(c.stack.Machine(c.ip)); got != c.want {
			t.Errorf("%+v, %s: %s, want %s", c.stack, c.ip, got, c.want)
		}
	}
}

func TestARangeIsReachedByTheAddressOfItsFamily(t *testing.T) {
	both := Stack{Dual: true}
	var via []netip.Addr
	for _, pods := range Prefixes(both.Pods()) {
		via = append(via, Of(pods, both.Machine(Node(0))))
	}

	if got := fmt.Sprint(via); got != "[10.99.1.1 fd00:10:99::1:1]" {
		t.Errorf("%s by %s", both.Pods(), got)
	}

	if got := Of(Prefixes(both.Services())[1], Stack{}.Machine(Node(0))); got.IsValid() {
		t.Errorf("a machine of IPv4 has %s", got)
	}

	if got := (Stack{}).Pods() + " " + (Stack{}).Services(); got != Pods+" "+Services {
		t.Errorf("ranges of IPv4: %s", got)
	}
}
