package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
)

// TestNetworkPoliciesAreInForce has a server on one node and clients on two, whose rules are exchanged under
// them.
func TestNetworkPoliciesAreInForce(t *testing.T) {
	p := withPolicies(open(t))
	p.start()

	p.reach("nobody")
	if tries := p.tries(); p.noted("passed") != "" {
		t.Errorf("a pod whose policy allows nothing has sent before it was in force (in %d tries)", tries)
	}

	// A port by its name, for pods with a label.
	p.allow(`{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
		"ports": [{"port": "web"}]}`, "")
	p.reach("friend:8080")

	// Another port, for a namespace with a label. The caller keeps its connection from here on.
	p.allow(`{"from": [{"namespaceSelector": {"matchLabels": {"team": "guests"}}}],
		"ports": [{"port": 9000}]}`, "")
	p.reach("guest:9000")
	p.call()

	// A block with an exception, and a way out. What the caller began goes on, and it could not begin it now.
	p.allow(fmt.Sprintf(`{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["%s/32"]}}],
		"ports": [{"port": 8080}]}`, p.address("stranger")),
		`{"to": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}`)
	p.reach("friend:8080", "guest:8080")
	p.goesOn("rules were exchanged")
	p.eventually(20*time.Second, "a packet that is allowed by now", func() error {
		if p.noted("passed") == "" {
			return errors.New("nothing has passed")
		}
		return nil
	})

	// Rules are the kernel's: they stay while nobody looks after them.
	p.do("kill", p.node, "trivet-netd")
	p.reach("friend:8080", "guest:8080")
	p.goesOn("trivet-netd was killed")
	p.do("start", p.node, "trivet-netd")

	p.kubectl("delete", "networkpolicy", "server")
	p.reach("friend:8080", "friend:9000", "guest:8080", "guest:9000", "stranger:8080", "stranger:9000")
	p.goesOn("the policy was deleted")
}

// policies are a server in the test's namespace, and clients: a friend, who is on another node, a stranger,
// who is on the same one, and a guest of another namespace.
type policies struct {
	*cluster
	// elsewhere is the other node.
	elsewhere string
	// guests is the other namespace.
	guests string
}

func withPolicies(c *cluster) *policies {
	c.t.Helper()
	nodes := c.plan().Nodes
	if len(nodes) < 2 {
		c.t.Skip("policies are looked at on two nodes, and this cluster has one")
	}
	for _, n := range nodes {
		if n.Network() != seat.Ours.Network() {
			c.t.Skipf("node %s has another network than trivet-netd's", n.Name)
		}
	}

	p := &policies{cluster: c, guests: c.namespace + "-guests"}
	for _, n := range nodes {
		if n.Name != c.node {
			p.elsewhere = n.Name
		}
	}
	return p
}

// start starts the pods. The server's policy is there before it.
func (p *policies) start() {
	p.t.Helper()
	p.t.Cleanup(func() {
		p.kubectl("delete", "namespace", p.guests, "--ignore-not-found", "--timeout=120s")
		_, _ = p.cluster.cluster("start", p.node, "trivet-netd")
	})
	p.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace",
		"metadata": {"name": %q, "labels": {"team": "guests"}}}`, p.guests))
	p.eventually(time.Minute, "service account", func() error {
		_, err := p.try("get", "serviceaccount", "default", "--namespace="+p.guests)
		return err
	})

	p.allow("", "")
	p.place("friend", p.elsewhere, p.namespace, echo)
	p.place("stranger", p.node, p.namespace, echo)
	p.place("guest", p.elsewhere, p.guests, echo)
	p.awaitReady(time.Minute, "friend", "stranger")
	p.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/guest", "--namespace="+p.guests)

	p.place("server", p.node, p.namespace, fmt.Sprintf(echoAndTry, p.address("friend")))
	p.awaitReady(time.Minute, "server")
}

// echo answers at two ports with what it gets. echoAndTry also sends to an address, from its first moment on,
// and counts the tries.
const (
	echo = `for port in 8080 9000; do nc -ll -p $port -e cat & done; wait`

	echoAndTry = `i=0; while :; do
		echo x | timeout 1 nc %s 8080 | grep -q x && echo $i >/n/passed
		i=$((i+1)); echo $i >/n/tries; sleep 0.1
	done & ` + echo
)

// place runs a script in a pod whose label app and role are its name.
func (p *policies) place(name, node, namespace, script string) {
	p.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod",
		"metadata": {"name": %q, "labels": {"app": %q, "role": %q}},
		"spec": {"nodeName": %q, "terminationGracePeriodSeconds": 2,
		"volumes": [{"name": "n", "emptyDir": {}}],
		"containers": [{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
		"ports": [{"name": "web", "containerPort": 8080}],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}]}]}}`
	object := fmt.Sprintf(pod, name, name, name, node, "trap 'exit 0' TERM; "+script)
	_, err := p.kubectlWith(object, "apply", "--validate=ignore", "--namespace="+namespace, "-f", "-")
	if err != nil {
		p.t.Fatal(err)
	}
}

// allow replaces what the server's policy allows, a rule of either direction; "" is none.
func (p *policies) allow(ingress, egress string) {
	p.t.Helper()
	p.apply(fmt.Sprintf(`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": {"name": "server"}, "spec": {"podSelector": {"matchLabels": {"app": "server"}},
		"policyTypes": ["Ingress", "Egress"], "ingress": [%s], "egress": [%s]}}`, ingress, egress))
}

func (p *policies) address(pod string) string {
	p.t.Helper()
	return p.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
}

// namespaceOf is that of a client.
func (p *policies) namespaceOf(client string) string {
	if client == "guest" || client == "caller" {
		return p.guests
	}
	return p.namespace
}

// reach waits until those clients reach those ports of the server that are named, as CLIENT:PORT, and nobody
// else reaches any.
func (p *policies) reach(wanted ...string) {
	p.t.Helper()
	want := strings.Join(wanted, " ")
	if want == "nobody" {
		want = ""
	}

	server := p.address("server")
	p.eventually(20*time.Second, "reached by "+strings.Join(wanted, " "), func() error {
		clients := []string{"friend", "guest", "stranger"}
		got := make([][]string, len(clients))
		failures := make([]error, len(clients))
		var asked sync.WaitGroup
		for i, client := range clients {
			asked.Go(func() { got[i], failures[i] = p.reachedBy(client, server) })
		}
		asked.Wait()

		if err := errors.Join(failures...); err != nil {
			return err
		}
		if have := strings.Join(slices.Concat(got...), " "); have != want {
			return fmt.Errorf("reached by %q, want %q", have, want)
		}
		return nil
	})
}

// reachedBy returns the ports of the server that a client reaches, as CLIENT:PORT.
func (p *policies) reachedBy(client, server string) (reached []string, err error) {
	const script = `for port in 8080 9000; do
		(echo x | timeout 1 nc %s $port | grep -q x && echo $port) &
	done; wait`
	out, err := p.try("exec", client, "--namespace="+p.namespaceOf(client), "--",
		"sh", "-c", fmt.Sprintf(script, server))
	for _, port := range []string{"8080", "9000"} {
		if strings.Contains(out, port) {
			reached = append(reached, client+":"+port)
		}
	}
	return reached, err
}

// call has a guest connect to the server and stay.
func (p *policies) call() {
	p.t.Helper()
	const script = `while :; do
		(i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done) | nc %s 9000 |
			while read n; do echo $n >/n/count; done
		echo again >>/n/broken; sleep 0.2
	done`
	p.place("caller", p.elsewhere, p.guests, fmt.Sprintf(script, p.address("server")))
	p.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/caller", "--namespace="+p.guests)
	p.goesOn("it began")
}

// goesOn checks that the caller's connection carries bytes, and is the first one.
func (p *policies) goesOn(since string) {
	p.t.Helper()
	file := func(name string) func() string {
		return func() string {
			out, _ := p.try("exec", "caller", "--namespace="+p.guests, "--", "cat", "/n/"+name)
			return out
		}
	}
	p.awaitLines(file("count"), 5)
	if broken := file("broken")(); broken != "" {
		p.t.Errorf("the connection did not outlast that %s", since)
	}
}

// noted returns what the server has written into a file.
func (p *policies) noted(name string) string { return strings.TrimSpace(p.notes("server", name)()) }

// tries waits until the server has tried to send a few times, and returns how often.
func (p *policies) tries() (n int) {
	p.t.Helper()
	p.eventually(20*time.Second, "tries to send", func() error {
		n, _ = strconv.Atoi(p.noted("tries"))
		if n < 3 {
			return fmt.Errorf("it has tried %d times", n)
		}
		return nil
	})
	return n
}
