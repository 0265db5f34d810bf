package firewall

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
)

// A record that cannot be read, or says that it is another one's, stands for no addresses.
func FuzzRecord(f *testing.F) {
	old := recordsDir
	f.Cleanup(func() { recordsDir = old })
	p := Pod{Network: "n", Owner: ipam.Owner{ContainerID: "abc", IfName: "eth0"}}
	whole, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}

	f.Add(whole)
	f.Add(whole[:10])
	f.Add([]byte(`{"network":"n","addresses":["192.0.2.1",""]}`))

	f.Fuzz(func(t *testing.T, data []byte) {
		recordsDir = t.TempDir()
		file := fileOf(p.Network, p.Owner)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}

		all, err := records(p.Network)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Owner != p.Owner {
				t.Errorf("%q is a record of %s", data, r.Owner)
			}
		}

		other := Pod{Network: "n", Owner: ipam.Owner{ContainerID: "other", IfName: "eth0"}}
		if _, err := othersAddresses(other); err != nil {
			t.Error(err)
		}
		if err := removeRecord(p); err != nil {
			t.Error(err)
		}
	})
}
