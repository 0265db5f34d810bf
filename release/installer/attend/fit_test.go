package attend

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/release/installer/swap"
)

func TestWhatIsFromBeforeConfirmsNothing(t *testing.T) {
	for name, change := range map[string]func(c *cluster){
		"runtime": func(c *cluster) {},
		"not ready": func(c *cluster) {
			c.change(func(n *corev1.Node) {
				n.Status = status("trivet-cri://v1")
				n.Status.Conditions[0].Status = corev1.ConditionFalse
			})
		},
		"status": func(c *cluster) {
			c.change(func(n *corev1.Node) {
				n.Status = status("trivet-cri://v1")
				n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Now().Add(-time.Minute))
			})
		},
		"pod": func(c *cluster) {
			c.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
			c.a.started = time.Now().Add(-time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t)
			c.look(2)
			c.host.does(swap.Trying, "")
			c.a.started = time.Now()

			change(c)
			c.look(1)
			order, err := c.host.folder.Order()
			if word := c.host.folder.Word(order.ID); err != nil || word.Works || word.Doubt == "" {
				t.Errorf("word %+v, %v", word, err)
			}
		})
	}
}

// TestUpgradeThatWasCutOffIsConfirmedByTheLease is of a machine that does not know any more whether it has
// stopped the agent: where one version of the runtime follows another one, nobody has.
func TestUpgradeThatWasCutOffIsConfirmedByTheLease(t *testing.T) {
	switched := time.Now().Truncate(time.Second)
	for name, c := range map[string]struct {
		from    swap.State
		renewed time.Time
		works   bool
	}{
		"upgrade":         {"v0-abc", switched.Add(time.Second), true},
		"upgrade, silent": {"v0-abc", switched.Add(-time.Second), false},
		"another runtime": {swap.Out, switched.Add(time.Second), false},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := start(t)
			cluster.Put(&coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n1"},
				Spec:       coordinationv1.LeaseSpec{RenewTime: new(metav1.NewMicroTime(c.renewed))},
			})
			node := cluster.node()
			node.Status = status("trivet-cri://v1")
			node.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(switched.Add(-time.Minute))
			cluster.a.started = switched.Add(-time.Hour)

			v := view{
				node:  node,
				order: swap.Order{ID: "x", To: ours},
				record: swap.Record{
					From:     c.from,
					Stopped:  switched.Add(-time.Second),
					Switched: switched,
				},
			}
			if err := (*inspector)(cluster.a).judge(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			if word := cluster.host.folder.Word("x"); word.Works != c.works || !word.Ready.IsZero() {
				t.Errorf("word %+v", word)
			}
		})
	}
}

// TestReadyIsWhenTheNodeFirstWas is of a status that is renewed while the machine waits for its proof.
func TestReadyIsWhenTheNodeFirstWas(t *testing.T) {
	c := start(t)
	c.look(2)
	c.host.does(swap.Trying, "")
	c.again()
	record, err := c.host.folder.Record()
	if err != nil {
		t.Fatal(err)
	}

	first := record.Switched.Truncate(time.Second).Add(2 * time.Second)
	for _, heartbeat := range []time.Time{first, first.Add(40 * time.Second)} {
		c.change(func(n *corev1.Node) {
			n.Status = status("trivet-cri://v1")
			n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(heartbeat)
		})
		c.look(1)
	}

	if word := c.host.folder.Word(record.Order.ID); !word.Works || !word.Ready.Equal(first) {
		t.Errorf("word %+v, want Ready at %s", word, first)
	}

	record.Ready, record.Stopped = first, first.Add(250*time.Millisecond)
	if text := summary(view{node: c.node(), record: record}); !strings.Contains(text, "Ready within 1 s") {
		t.Errorf("result %q", text)
	}
}
