package ipam_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
)

func set(t testing.TB, subnet string) ipam.Set {
	t.Helper()
	r, err := ipam.NewRange(ipam.Range{Subnet: netip.MustParsePrefix(subnet)})
	if err != nil {
		t.Fatal(err)
	}
	return ipam.Set{r}
}

func open(t testing.TB, dir string) *ipam.Pool {
	t.Helper()
	p, err := ipam.Location{DataDir: dir, Network: "net"}.Create()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func owner(i int) ipam.Owner {
	return ipam.Owner{ContainerID: fmt.Sprintf("pod-%d", i), IfName: "eth0"}
}

func TestEachOwnerGetsOneAddressOfEachSetAndAnAddressRestsBeforeItIsUsedAgain(t *testing.T) {
	p := open(t, t.TempDir())
	sets := []ipam.Set{set(t, "10.1.0.0/29"), set(t, "fd00::/125")}

	// .1 is the gateway, .7 the broadcast address.
	var given []netip.Addr
	for i := range 5 {
		leases, err := p.Allocate(owner(i), sets[:1], nil)
		if err != nil {
			t.Fatal(err)
		}

		given = append(given, leases[0].Address)
	}

	if leases, err := p.Allocate(owner(5), sets[:1], nil); !errors.Is(err, ipam.ErrExhausted) {
		t.Fatalf("the sixth of five addresses: %v, %v", leases, err)
	}
	if want := netip.MustParseAddr("10.1.0.2"); given[0] != want || len(given) != 5 {
		t.Fatalf("given %v", given)
	}

	for _, i := range []int{3, 0} {
		if err := p.Release(owner(i)); err != nil {
			t.Fatal(err)
		}
	}

	leases, err := p.Allocate(owner(10), sets, nil)
	if err != nil {
		t.Fatal(err)
	}
	if leases[0].Address != given[0] || !leases[1].Address.Is6() {
		t.Fatalf("after %v the round starts again: %v", given, leases)
	}
	if _, err := p.Allocate(owner(10), sets, nil); err == nil {
		t.Fatal("a second allocation of one owner is an error")
	}

	held, err := p.Find(owner(10))
	if err != nil || len(held) != 2 {
		t.Fatalf("the failed allocation took something away: %v, %v", held, err)
	}
}

func TestAFailedAllocationKeepsNothing(t *testing.T) {
	p := open(t, t.TempDir())
	// It has two addresses beside the gateway and the network.
	full := set(t, "fd00::/126")
	for i := range 2 {
		if _, err := p.Allocate(owner(i), []ipam.Set{full}, nil); err != nil {
			t.Fatal(err)
		}
	}

	sets := []ipam.Set{set(t, "10.1.0.0/24"), full}
	if _, err := p.Allocate(owner(9), sets, nil); !errors.Is(err, ipam.ErrExhausted) {
		t.Fatal(err)
	}
	if held, err := p.Find(owner(9)); err != nil || len(held) > 0 {
		t.Fatalf("still held: %v, %v", held, err)
	}

	free, _, err := p.Free(sets[0], 1000)
	if err != nil || free != 253 {
		t.Fatalf("%d free, %v", free, err)
	}
}

func TestRequestedAddresses(t *testing.T) {
	p := open(t, t.TempDir())
	sets := []ipam.Set{set(t, "10.1.0.0/24")}
	wanted := netip.MustParseAddr("10.1.0.77")
	leases, err := p.Allocate(owner(1), sets, []netip.Addr{wanted})
	if err != nil || leases[0].Address != wanted {
		t.Fatal(leases, err)
	}

	for bad, why := range map[string]string{
		"10.1.0.77": "is taken",
		"10.1.0.1":  "is the gateway of subnet 10.1.0.0/24",
		"10.2.0.1":  "is in no range of the network",
	} {
		leases, err := p.Allocate(owner(2), sets, []netip.Addr{netip.MustParseAddr(bad)})
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", bad, leases, err)
		}
	}
}

// Files as upstream's host-local leaves them.
func TestReservationsOfUpstreamAreRespectedFoundAndReleased(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, "net", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("10.1.0.2", "theirs\r\neth0")
	write("10.1.0.3", "ancient")
	// One that was torn is free.
	write("10.1.0.4", "")
	write("last_reserved_ip.0", "10.1.0.1")
	leases, err := p.Allocate(owner(1), []ipam.Set{set(t, "10.1.0.0/24")}, nil)
	if err != nil || leases[0].Address.String() != "10.1.0.4" {
		t.Fatal(leases, err)
	}

	for _, o := range []ipam.Owner{
		{ContainerID: "theirs", IfName: "eth0"},
		{ContainerID: "ancient", IfName: "eth0"},
	} {
		if held, err := p.Find(o); err != nil || len(held) != 1 {
			t.Errorf("%s holds %v, %v", o, held, err)
		}
		if err := errors.Join(p.Release(o), p.Release(o)); err != nil {
			t.Error(err)
		}
	}

	content, err := os.ReadFile(filepath.Join(dir, "net", "10.1.0.4"))
	if err != nil || string(content) != "pod-1\r\neth0" {
		t.Errorf("our reservation is %q, %v", content, err)
	}
}

func TestEmptyFilesAreFreeAddresses(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	sets := set(t, "10.1.0.0/29")
	for i := 2; i <= 6; i++ {
		content := ""
		if i%2 == 1 {
			content = "theirs\r\neth0"
		}

		path := filepath.Join(dir, "net", fmt.Sprintf("10.1.0.%d", i))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if free, _, err := p.Free(sets, 10); err != nil || free != 3 {
		t.Errorf("%d free, %v", free, err)
	}
}

func TestReservationsOfAnEarlierBootAreVoid(t *testing.T) {
	dir := t.TempDir()
	bootFile := filepath.Join(dir, "net", ".boot_id")
	scoped := func() *ipam.Pool {
		p, err := ipam.Location{DataDir: dir, Network: "net", BootScoped: true}.Create()
		if err != nil {
			t.Fatal(err)
		}

		return p
	}

	sets := []ipam.Set{set(t, "10.1.0.0/24")}
	if _, err := scoped().Allocate(owner(1), sets, nil); err != nil {
		t.Fatal(err)
	}
	if held, err := scoped().Find(owner(1)); err != nil || len(held) != 1 {
		t.Fatalf("within one boot %v, %v", held, err)
	}

	// Programs of other versions compare the whole line.
	kernels, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}

	noted, err := os.ReadFile(bootFile)
	if err != nil || string(noted) != string(kernels) {
		t.Errorf("noted %q, %v", noted, err)
	}

	// A power cut leaves an empty file.
	for _, former := range []string{"another\n", ""} {
		if err := os.WriteFile(bootFile, []byte(former), 0o644); err != nil {
			t.Fatal(err)
		}
		if held, err := scoped().Find(owner(1)); err != nil || len(held) != 0 {
			t.Fatalf("still held after a reboot: %v, %v", held, err)
		}
		if _, err := scoped().Allocate(owner(1), sets, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// It is not known which boot they are of: they may be upstream's, for containers that run.
func TestReservationsOfAnUnknownBootStay(t *testing.T) {
	dir := t.TempDir()
	sets := []ipam.Set{set(t, "10.1.0.0/24")}
	if _, err := open(t, dir).Allocate(owner(1), sets, nil); err != nil {
		t.Fatal(err)
	}

	p, err := ipam.Location{DataDir: dir, Network: "net", BootScoped: true}.Create()
	if err != nil {
		t.Fatal(err)
	}
	if held, err := p.Find(owner(1)); err != nil || len(held) != 1 {
		t.Errorf("held %v, %v", held, err)
	}
}

func isEven(o ipam.Owner) bool { return o.ContainerID[len(o.ContainerID)-1]%2 == 0 }

// Whatever the order of calls: no address is held twice, and what is kept is what the model says.
func TestPoolAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := open(t, t.TempDir())
	sets := []ipam.Set{set(t, "10.1.0.0/27"), set(t, "fd00::/123")}
	model := map[ipam.Owner][]netip.Addr{}
	for range 800 {
		o := owner(random.IntN(40))
		switch n := random.IntN(20); {
		case n < 8:
			if err := p.Release(o); err != nil {
				t.Fatal(err)
			}

			delete(model, o)

		case n == 8:
			if err := p.Keep(isEven); err != nil {
				t.Fatal(err)
			}

			maps.DeleteFunc(model, func(o ipam.Owner, _ []netip.Addr) bool { return !isEven(o) })

		default:
			leases, err := p.Allocate(o, sets, nil)
			mayHave := len(model[o]) == 0 && len(model) < 29
			if mayHave != (err == nil) {
				t.Fatalf("%s has %v and got %v, %v; %d owners", o, model[o], leases, err, len(model))
			}
			if err == nil {
				model[o] = []netip.Addr{leases[0].Address, leases[1].Address}
			}
		}
	}

	for i := range 40 {
		held, err := p.Find(owner(i))
		if err != nil || !slices.Equal(held, model[owner(i)]) {
			t.Errorf("%s holds %v, want %v (%v)", owner(i), held, model[owner(i)], err)
		}
	}
}

func TestManyAtOnceShareAPool(t *testing.T) {
	dir := t.TempDir()
	sets := []ipam.Set{set(t, "10.1.0.0/25")}
	var mu sync.Mutex
	seen := map[netip.Addr]int{}
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			leases, err := open(t, dir).Allocate(owner(i), sets, nil)
			if err != nil {
				t.Error(err)
				return
			}

			mu.Lock()
			defer mu.Unlock()

			seen[leases[0].Address]++
		})
	}

	group.Wait()
	if len(seen) != 100 {
		t.Errorf("100 owners got %d addresses", len(seen))
	}
}

func TestRangesThatMakeNoSense(t *testing.T) {
	subnet := netip.MustParsePrefix("10.1.0.0/24")
	for why, r := range map[string]ipam.Range{
		"range without subnet":       {},
		"has host bits set":          {Subnet: netip.MustParsePrefix("10.1.0.1/24")},
		"is too small":               {Subnet: netip.MustParsePrefix("10.1.0.0/31")},
		"rangeStart 10.2.0.1 is not": {Subnet: subnet, Start: netip.MustParseAddr("10.2.0.1")},
		"rangeEnd 10.2.0.1 is not":   {Subnet: subnet, End: netip.MustParseAddr("10.2.0.1")},
		"gateway fd00::1 is not":     {Subnet: subnet, Gateway: netip.MustParseAddr("fd00::1")},
		"rangeEnd 10.1.0.3 is before": {
			Subnet: subnet,
			Start:  netip.MustParseAddr("10.1.0.9"),
			End:    netip.MustParseAddr("10.1.0.3"),
		},
	} {
		got, err := ipam.NewRange(r)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%+v is taken as %+v, %v; want %s", r, got, err, why)
		}
	}

	if err := ipam.CheckSets([]ipam.Set{set(t, "10.1.0.0/24"), set(t, "10.1.0.0/25")}); err == nil {
		t.Error("overlapping ranges are taken")
	}
}

func TestUsesCountWhatIsTakenOfEachRange(t *testing.T) {
	dir := t.TempDir()
	sets := []ipam.Set{set(t, "10.9.0.0/29"), set(t, "fd00:9::/64")}
	location := ipam.Location{DataDir: dir, Network: "net"}
	count := func() string {
		t.Helper()
		uses, err := location.Uses(sets)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d of %v, %d of %v", uses[0].Taken, uses[0].Total, uses[1].Taken, uses[1].Total)
	}

	// Of eight addresses five are for pods: network, broadcast and gateway are not.
	if got := count(); got != "0 of 5, 0 of 1.8446744073709552e+19" {
		t.Errorf("a network that never was: %s", got)
	}

	pool := open(t, dir)
	for i := range 3 {
		if _, err := pool.Allocate(owner(i), sets, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "net", "10.9.0.6"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != "3 of 5, 3 of 1.8446744073709552e+19" {
		t.Errorf("after three pods: %s", got)
	}
}
