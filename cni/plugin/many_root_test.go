package plugin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// podsVariable says how many pods TestManyPodsOfOneBridge has. A bridge has 1,023 ports.
const podsVariable = "TRIVET_PODS"

// sample is of how many the first and the last ADDs are compared.
const sample = 40

func TestManyPodsOfOneBridge(t *testing.T) {
	h := newHost(t, "")
	count := number(t, podsVariable, 2*sample)
	config := `{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0","isDefaultGateway":true,
		"ipMasq":true,"hostRouted":true,"lazyUnlink":true,"ipam":{"type":"host-local","bootScoped":true,
		"dataDir":"` + h.dataDir + `","ranges":[[{"subnet":"10.88.0.0/16"}]]}%s}`
	pods := make([]*chain, count)
	took := make([]time.Duration, count)
	for i := range pods {
		c := &chain{host: h, id: fmt.Sprintf("pod-%d", i), netns: testenv.Netns(t)}
		began := time.Now()
		c.result = h.must("ADD", c.id, c.netns, fmt.Sprintf(config, ""))
		took[i] = time.Since(began)
		pods[i] = c
	}

	first, last := median(took[:sample]), median(took[count-sample:])
	t.Logf("median of the first %d ADDs %v, of the last of %d %v", sample, first, count, last)

	addresses := map[string]bool{}
	for _, c := range pods {
		addresses[c.address(false).String()] = true
	}
	if len(addresses) != count {
		t.Errorf("%d pods have %d addresses", count, len(addresses))
	}

	for i := 0; i < count; i += 10 {
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
	began := time.Now()
	h.must("GC", "", "", gc)
	t.Logf("GC of %d cut off interfaces %v", count, time.Since(began))
	if left := h.remains(); left != "" {
		t.Error("after GC:", left)
	}
}

func median(all []time.Duration) time.Duration { return slices.Sorted(slices.Values(all))[len(all)/2] }
