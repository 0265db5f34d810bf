package scenario

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// server takes connections on port 8080, and what comes in by port 9000 is in /n/stream.
const server = `while :; do nc -l -p 9000 >>/n/stream; done &
	httpd -f -p 8080 -h /n & while :; do sleep 1; done`

// knock tries to connect to port 8080 of an address every 0.2 s, from its first instruction on. It notes each
// attempt, and each that succeeds.
const knock = `while :; do
	if nc -z -w 1 %[1]s 8080; then echo >>/n/passed; fi; echo >>/n/tried; sleep 0.2; done`

// stream does so as well, and beside that sends to port 9000 through one connection.
const stream = `(while :; do echo tick; sleep 0.2; done | nc %[1]s 9000) & ` + knock

// denial isolates all pods of a namespace; allowance lets pods with a label reach the server.
const (
	denial = `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}`
	allowance = `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": {"name": "allow"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
		"ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]}}`
)

func TestNetworkPoliciesAreInForce(t *testing.T) {
	c := open(t)
	if c.cni != "trivet" {
		t.Skip("network policies are kept in force by trivet-netd")
	}
	t.Cleanup(func() { _, _ = c.cluster("start", c.node, "trivet-netd") })

	c.apply(denial)
	c.apply(allowance)
	c.pod("server", server)
	c.awaitReady(time.Minute, "server")
	ip := c.kubectl("get", "pod", "server", "-o", "jsonpath={.status.podIP}")

	c.pod("stranger", fmt.Sprintf(knock, ip))
	c.pod("friend", fmt.Sprintf(stream, ip))
	c.kubectl("label", "pod", "friend", "role=friend")
	c.awaitReady(time.Minute, "stranger", "friend")
	stranger, friend := c.knocks("stranger"), c.knocks("friend")
	arrived := c.notes("server", "stream")
	friend.awaitPassed(c)
	c.awaitMore("what the friend streams", arrived)
	stranger.neverPasses(c)

	// What is in force stays so while nobody is there, for pods that come, too: those are held.
	c.do("kill", c.node, "trivet-netd")
	c.pod("late", fmt.Sprintf(knock, ip))
	c.awaitReady(time.Minute, "late")
	late := c.knocks("late")
	late.neverPasses(c)
	stranger.neverPasses(c)
	friend.awaitPassed(c)
	c.do("start", c.node, "trivet-netd")

	c.kubectl("label", "pod", "stranger", "role=friend")
	stranger.awaitPassed(c)
	late.neverPasses(c)

	// Without the rule nobody begins a connection, and the one that is there goes on.
	c.kubectl("delete", "networkpolicy", "allow")
	friend.awaitRefused(c)
	c.awaitMore("what the friend streams after the rule has gone", arrived)
}

// knocks are the attempts of a pod.
type knocks struct{ tried, passed func() string }

func (c *cluster) knocks(pod string) knocks {
	c.t.Helper()
	return knocks{tried: c.notes(pod, "tried"), passed: c.notes(pod, "passed")}
}

// awaitMore waits until a text of a pod grows.
func (c *cluster) awaitMore(what string, text func() string) {
	c.t.Helper()
	before := text()
	c.eventually(time.Minute, what, func() error {
		if len(text()) <= len(before) {
			return errors.New("there is nothing new")
		}
		return nil
	})
}

func (k knocks) awaitPassed(c *cluster) {
	c.t.Helper()
	c.awaitMore("a connection", k.passed)
}

// neverPasses waits for some attempts more, and checks that none has succeeded since the pod's first one.
func (k knocks) neverPasses(c *cluster) {
	c.t.Helper()
	for range 3 {
		c.awaitMore("an attempt", k.tried)
	}
	if passed := k.passed(); passed != "" {
		c.t.Fatalf("%d connections that policies do not allow", strings.Count(passed, "\n"))
	}
}

// awaitRefused waits until attempts do not succeed any more.
func (k knocks) awaitRefused(c *cluster) {
	c.t.Helper()
	c.eventually(time.Minute, "attempts that fail", func() error {
		before := k.passed()
		c.awaitMore("an attempt", k.tried)
		c.awaitMore("an attempt", k.tried)
		if k.passed() != before {
			return errors.New("they succeed")
		}
		return nil
	})
}
