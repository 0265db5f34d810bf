package hostport

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
)

func TestRecordsSurviveUntilTheyAreRemovedOrCollected(t *testing.T) {
	pool, err := ipam.Location{DataDir: t.TempDir(), Network: "net"}.Create()
	if err != nil {
		t.Fatal(err)
	}

	store := storeOf(pool)
	if all, err := store.all(); err != nil || all != nil {
		t.Errorf("before the first: %v, %v", all, err)
	}

	ports := []hostnat.Port{
		{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.2:8080")},
		{
			HostIP:   netip.MustParseAddr("fd01::1"),
			HostPort: 80,
			Protocol: "udp",
			Pod:      netip.MustParseAddrPort("[fd00::2]:53"),
		},
	}

	var owners []ipam.Owner
	for _, id := range []string{"a", "b", "c"} {
		owners = append(owners, ipam.Owner{ContainerID: id, IfName: "eth0"})
	}

	for _, o := range owners {
		// an ADD that is repeated
		for range 2 {
			if err := store.write(record{Owner: o, Ports: ports}); err != nil {
				t.Fatal(err)
			}
		}
	}

	all, err := store.all()
	if err != nil || len(all) != 3 || !slices.Equal(all[0].Ports, ports) {
		t.Errorf("%+v, %v", all, err)
	}

	if err := os.WriteFile(filepath.Join(pool.PortsDir(), "torn"), []byte(`{"owner":`), 0o600); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := store.remove(owners[0]); err != nil {
			t.Error(err)
		}
	}

	if err := store.keep(func(o ipam.Owner) bool { return o == owners[1] }); err != nil {
		t.Error(err)
	}

	left, err := os.ReadDir(pool.PortsDir())
	if err != nil || len(left) != 2 || !store.has(owners[1]) || !store.ended().has(owners[2]) {
		t.Errorf("left %v, %v", left, err)
	}
}

// The file may be damaged, or somebody else's.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"owner":{"ContainerID":"a","IfName":"eth0"},` +
		`"ports":[{"HostIP":"192.0.2.1","HostPort":80,"Protocol":"tcp","Pod":"10.1.0.2:8080"}]}`))
	f.Add([]byte(`{"owner":null,` +
		`"ports":[{"HostIP":"::","HostPort":80,"Protocol":"udp","Pod":"[fd00::2%x]:53"}]}`))
	f.Add([]byte(`{"ports":[{}]}`))

	s := store{dir: f.TempDir()}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, ok := parse(data)
		if !ok {
			return
		}
		for _, p := range r.Ports {
			if !p.IsValid() {
				t.Errorf("%+v is no port", p)
			}
		}

		// What is read is written as what is read again.
		if err := s.write(r); err != nil {
			t.Fatal(err)
		}
		again, ok := s.read(r.Owner)
		if !ok || !slices.Equal(again.Ports, r.Ports) {
			t.Errorf("%+v is read as %+v, %v", r, again, ok)
		}
	})
}
