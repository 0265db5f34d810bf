package plugin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// The pods of TestAThousandPods, and of how many the first and the last ADDs are compared. A bridge has 1,023
// ports.
const (
	thousand = 1000
	sample   = 40
)

func TestAThousandPods(t *testing.T) {
	h := newHost(t, "")
	config := `{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0","isDefaultGateway":true,
		"ipMasq":true,"hostRouted":true,"lazyUnlink":true,"ipam":{"type":"host-local","bootScoped":true,
		"dataDir":"` + h.dataDir + `","ranges":[[{"subnet":"10.88.0.0/16"}]]}%s}`
	pods := make([]*chain, thousand)
	took := make([]time.Duration, thousand)
	for i := range pods {
		c := &chain{host: h, id: fmt.Sprintf("pod-%d", i), netns: testenv.Netns(t)}
		began := time.Now()
		c.result = h.must("ADD", c.id, c.netns, fmt.Sprintf(config, ""))
		took[i] = time.Since(began)
		pods[i] = c
	}

	first, last := median(took[10:10+sample]), median(took[950-sample/2:950+sample/2])
	t.Logf("ADD with 10 pods %v, with 950 pods %v: %.2f times", first, last, float64(last)/float64(first))

	addresses := map[string]bool{}
	for _, c := range pods {
		addresses[c.address(false).String()] = true
	}
	if len(addresses) != thousand {
		t.Errorf("%d pods have %d addresses", thousand, len(addresses))
	}

	for i := 0; i < thousand; i += 50 {
		c := pods[i]
		h.must("CHECK", c.id, c.netns, fmt.Sprintf(config, `,"prevResult":`+c.result))
	}

	for _, c := range pods {
		h.must("DEL", c.id, c.netns, fmt.Sprintf(config, ""))
	}

	// The kernel takes the links apart with the namespaces, which are still there: GC does it instead.
	gc := fmt.Sprintf(config, `,"cni.dev/valid-attachments":[]`)
	if left := h.remains(); strings.Contains(left, "file") || strings.Contains(left, "comment") {
		t.Error("before GC:", left)
	}
	h.must("GC", "", "", gc)
	if left := h.remains(); left != "" {
		t.Error("after GC:", left)
	}
}

func median(all []time.Duration) time.Duration { return slices.Sorted(slices.Values(all))[len(all)/2] }
