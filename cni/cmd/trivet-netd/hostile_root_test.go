package main

import (
	"fmt"
	"strings"
	"testing"
)

// The credential of one node is enough to write that Node: its pod CIDRs get no route unless they are what a
// controller-manager allocates.
func TestNodesWithHostilePodCIDRsGetNoRoute(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.putB()
	for name, cidr := range map[string]string{
		"outside": "8.0.0.0/8",
		"half":    "10.244.1.128/25",
		"around":  "10.244.0.0/20",
		"same":    "10.244.1.0/24",
		"service": "10.244.96.0/24",
	} {
		w.api.put(name, []string{cidr}, []string{"10.99.0.66"})
	}

	w.start()
	w.awaitRoutes(own4, own6, b4, b6)
	for name, why := range map[string]string{
		"outside": "pod CIDR 8.0.0.0/8 is refused: it is not within the cluster's pod networks",
		"half":    "pod CIDR 10.244.1.128/25 is refused: node b, which was there before, has 10.244.1.0/24",
		"around":  "pod CIDR 10.244.0.0/20 is refused: node a, which was there before, has 10.244.0.0/24",
		"same":    "pod CIDR 10.244.1.0/24 is refused: node b, which was there before, has 10.244.1.0/24",
		"service": "pod CIDR 10.244.96.0/24 is refused: it holds addresses of Services or of the API " +
			"server, " + serviceCIDR,
	} {
		w.awaitReport(200, "note: node "+name+": "+why)
		event := w.eventOf(name)
		if !strings.Contains(event.Message, why) || event.Type != "Warning" ||
			event.Reason != "FailedPodCIDR" || string(event.InvolvedObject.UID) != "uid-"+name {
			t.Errorf("event %+v", event)
		}
	}

	if conf := w.in(w.node, "cat", w.dir+"/conf/10-trivet.conflist"); strings.Contains(conf, "8.0.0.0/8") {
		t.Errorf("what is sent to 8.0.0.0/8 is not masqueraded: %s", conf)
	}
}

// Before kube-proxy has written its rules, a connection to the API's Service is neither refused nor answered.
func TestReadyWhenTheAPIServerAnswersAtLast(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	port := w.address[strings.LastIndexByte(w.address, ':')+1:]
	const drop = "add table inet t; add chain inet t in { type filter hook input priority 0; }; " +
		"add rule inet t in tcp dport %s drop"
	w.in(w.node, "nft", fmt.Sprintf(drop, port))
	w.start()
	w.awaitReport(503, "waiting for the API server")
	w.awaitReport(503, "i/o timeout")
	w.in(w.node, "nft", "delete table inet t")
	w.awaitReport(200, "1 nodes")
}
