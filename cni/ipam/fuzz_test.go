package ipam_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
)

// Upstream's host-local writes into the same directory, and a crash leaves any part of a file.
func FuzzFilesOfAPool(f *testing.F) {
	contents := []string{"", "pod-0\r\neth0", "pod-1", "10.1.0.4", "a\nb\nc", "\x00", "10.1.0.2\n10.1.0.3"}
	for _, content := range contents {
		f.Add([]byte(content), []byte(content))
	}

	f.Fuzz(func(t *testing.T, reservation, state []byte) {
		dir := t.TempDir()
		p := open(t, dir)
		for name, content := range map[string][]byte{
			"10.1.0.2":           reservation,
			"last_reserved_ip.0": state,
			".by-id/pod-0:eth0":  state,
			".by-id/pod-1:eth0":  reservation,
			"10.1.0.300":         state,
			"not-an-address":     reservation,
		} {
			file := filepath.Join(dir, "net", name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}

		// Whatever they say, two pods have two addresses, and nobody gets one that is another one's.
		var given []netip.Addr
		for i := range 2 {
			leases, err := p.Allocate(owner(i+10), []ipam.Set{set(t, "10.1.0.0/28")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			given = append(given, leases[0].Address)
		}
		if given[0] == given[1] || len(reservation) > 0 && isReserved(given, reservation) {
			t.Errorf("given %v, with %q", given, reservation)
		}

		for i := range 2 {
			if held, err := p.Find(owner(i + 10)); err != nil || !slices.Equal(held, given[i:i+1]) {
				t.Errorf("pod %d holds %v, %v", i, held, err)
			}
			if err := p.Release(owner(i + 10)); err != nil {
				t.Error(err)
			}
		}
		if err := p.Keep(func(ipam.Owner) bool { return false }); err != nil {
			t.Error(err)
		}
	})
}

// isReserved reports whether the address that has a file with content was given. Blanks are no content.
func isReserved(given []netip.Addr, content []byte) bool {
	return slices.Contains(given, netip.MustParseAddr("10.1.0.2")) && len(slices.DeleteFunc(
		slices.Clone(content), func(b byte) bool { return b <= ' ' })) > 0
}
