package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// TestClaimsAreServedWhereTheyMayBe has classes that allow some nodes, at once or for a consumer, and a claim
// whose selected node is gone.
func TestClaimsAreServedWhereTheyMayBe(t *testing.T) {
	c := open(t)
	there := c.anotherNode()
	const waits, at1 = "WaitForFirstConsumer", "Immediate"
	c.storageClass("there-"+c.namespace, waits, nil, there)
	c.storageClass("now-"+c.namespace, at1, nil, c.node, there)
	c.storageClass("now-there-"+c.namespace, at1, nil, there)

	c.applyAll(
		wish{name: "there", class: "there-" + c.namespace}.claim(), user("there", "there"),
		wish{name: "now-1", class: "now-" + c.namespace}.claim(),
		wish{name: "now-2", class: "now-" + c.namespace}.claim(),
		wish{name: "now-there", class: "now-there-" + c.namespace}.claim(),
		wish{name: "orphan", selected: "gone-for-ever"}.claim(), user("orphan", "orphan"),
	)
	c.awaitBound("now-1", "now-2", "now-there")
	c.applyAll(user("now-1", "now-1"), user("now-2", "now-2"), user("now-there", "now-there"))
	c.awaitReady(2*time.Minute, "there", "now-1", "now-2", "now-there", "orphan")

	for _, pod := range []string{"there", "now-there"} {
		if node := c.get("pod/"+pod, "{.spec.nodeName}"); node != there {
			t.Errorf("pod %s is on %s, its class allows %s", pod, node, there)
		}
	}
}

// TestClaimsThatFindNoRoomGoElsewhere has two claims, each of which has room on a node, and that together
// have none. The scheduler looks at each alone.
func TestClaimsThatFindNoRoomGoElsewhere(t *testing.T) {
	c := open(t)
	there := c.anotherNode()
	free := c.capacities("trivet")
	size := max(free[c.node], free[there]) * 6 / 10
	if size == 0 || size > min(free[c.node], free[there]) {
		t.Fatalf("nodes of about the same size are wanted, they have room for %v bytes", free)
	}

	large := wish{size: fmt.Sprint(size)}
	one, two, late := large, large, large
	one.name, two.name, late.name = "one", "two", "late"
	c.applyAll(one.claim(), two.claim(),
		preferring(c.node, user("one", "one")), preferring(c.node, user("two", "two")))
	c.awaitReady(2*time.Minute, "one", "two")
	places := []string{c.get("pod/one", "{.spec.nodeName}"), c.get("pod/two", "{.spec.nodeName}")}
	if slices.Sort(places); places[0] == places[1] {
		t.Errorf("both are on %s, which does not have the room for both", places[0])
	}
	c.eventually(10*time.Second, "it is known that both nodes are full", func() error {
		if free := c.capacities("trivet"); free[c.node] >= size || free[there] >= size {
			return fmt.Errorf("they have room for %v bytes", free)
		}
		return nil
	})

	// A scheduler that does not know that yet selects a full node.
	late.selected = c.node
	c.applyAll(late.claim())
	c.awaitEvent("late", "ProvisioningFailed", "not enough space")
	c.awaitField("pvc/late", selected, "")
	c.applyAll(user("late", "late"))
	c.awaitUnschedulable("late", "did not have enough free storage")

	// It is served as soon as there is room again, wherever that is.
	node := c.get("pod/two", "{.spec.nodeName}")
	c.kubectl("delete", "pod/two", "pvc/two", "--wait")
	c.awaitReady(2*time.Minute, "late")
	if got := c.get("pod/late", "{.spec.nodeName}"); got != node {
		t.Errorf("it is on %s, there was room on %s", got, node)
	}
}

// capacities are the bytes that the nodes have for volumes of a class, as the scheduler sees it.
func (c *cluster) capacities(class string) map[string]int64 {
	c.t.Helper()
	free := map[string]int64{}
	rows := c.kubectl("get", "csistoragecapacities", "--namespace=kube-system", "-o",
		`jsonpath={range .items[?(@.storageClassName=="`+class+`")]}`+
			`{.nodeTopology.matchLabels.*} {.capacity}{"\n"}{end}`)
	for row := range strings.Lines(rows) {
		node, capacity, _ := strings.Cut(strings.TrimSpace(row), " ")
		size, err := resource.ParseQuantity(capacity)
		if err != nil {
			c.t.Fatalf("capacity %q of %s: %v", capacity, node, err)
		}
		if _, twice := free[node]; twice {
			c.t.Errorf("node %s has two capacities of class %s", node, class)
		}
		free[node] = size.Value()
	}
	return free
}
