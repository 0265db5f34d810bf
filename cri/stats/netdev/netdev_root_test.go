package netdev

import (
	"os"
	"os/exec"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestInterfacesOfEachNamespaceAreItsOwn(t *testing.T) {
	testenv.Root(t)
	testenv.Program(t, "nsenter", "util-linux")
	empty, full := testenv.Netns(t), testenv.Netns(t)
	add := []string{"--net=" + full, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"}
	if out, err := exec.Command("nsenter", add...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}

	// After one that cannot be entered, the thread must not show those of the one before.
	got := Read([]string{full, empty, full + "-gone", full, "/dev/null"})
	for i, want := range []int{2, 0, 0, 2, 0} {
		if n := len(got[i].Interfaces); n != want {
			t.Errorf("namespace %d has %d interfaces, want %d", i, n, want)
		}
		if broken := i == 2 || i == 4; (got[i].Err != nil) != broken {
			t.Errorf("namespace %d: %v", i, got[i].Err)
		}
	}

	after, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil || after != before {
		t.Errorf("the test is in %s, was in %s, %v", after, before, err)
	}
}

// BenchmarkRead reads the interfaces of as many namespaces as a full node has, of which two are real.
func BenchmarkRead(b *testing.B) {
	testenv.Root(b)
	one, other := testenv.Netns(b), testenv.Netns(b)
	var paths []string
	for range 55 {
		paths = append(paths, one, other)
	}

	b.ReportAllocs()
	for b.Loop() {
		if got := Read(paths); got[0].Err != nil {
			b.Fatal(got[0].Err)
		}
	}
}
