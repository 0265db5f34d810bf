package netdev

import (
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestInterfacesOfANamespaceAreRead(t *testing.T) {
	testenv.Root(t)
	path := testenv.Netns(t)
	if got, err := Of(path); err != nil || len(got) > 0 {
		t.Errorf("of a new namespace: %v, %v", got, err)
	}
	if _, err := Of(path + "-gone"); err == nil {
		t.Error("no error for a namespace that is not there")
	}
	if _, err := Of("/dev/null"); err == nil {
		t.Error("no error for what is not a namespace")
	}
}

// BenchmarkOf reads the interfaces of one namespace.
func BenchmarkOf(b *testing.B) {
	testenv.Root(b)
	path := testenv.Netns(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Of(path); err != nil {
			b.Fatal(err)
		}
	}
}
