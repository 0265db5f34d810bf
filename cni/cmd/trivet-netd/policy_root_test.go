package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// newPolicyWorld is a node whose policies are enforced, in a cluster with the namespaces closed and open.
func newPolicyWorld(t *testing.T) *world {
	w := newWorld(t)
	testenv.Program(t, "nft", "nftables")
	ownData(t)
	w.policies = true
	w.write("good", 0o600, "")
	w.putOwn()
	for _, name := range []string{"closed", "open"} {
		w.api.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return w
}

// deny is a policy of the namespace closed, with ingress rules for the pods that it selects.
func (w *world) deny(from ...networkingv1.NetworkPolicyIngressRule) {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "closed", Name: "deny"}}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	p.Spec.Ingress = from
	w.api.Put(p)
}

// putPod stores a pod that is scheduled to this node and has no address yet.
func (w *world) putPod(namespace, name string) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace,
		Name:      name,
		Labels:    map[string]string{"app": name},
	}}
	p.Spec.NodeName = "a"
	w.api.Put(p)
}

// attached is a pod that the plugin has attached. It answers at port 80.
type attached struct {
	netns   string
	address string
}

// conf is the plugin's part of what netd has written.
func (w *world) conf() map[string]any {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "conf/10-trivet.conflist"))
	var list struct {
		Plugins []map[string]any
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	c := list.Plugins[0]
	c["cniVersion"], c["name"] = "1.1.0", "trivet"
	delete(c, "capabilities")
	return c
}

// call calls the plugin as a runtime does.
func (w *world) call(verb, namespace_, name, netns string) []byte {
	w.t.Helper()
	stdin, err := json.Marshal(w.conf())
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Args[0] = "trivet-cni"
	cmd.Env = append(os.Environ(),
		"CNI_COMMAND="+verb, "CNI_CONTAINERID="+name, "CNI_IFNAME=eth0", "CNI_NETNS="+netns,
		"CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE="+namespace_+";K8S_POD_NAME="+name)
	cmd.Stdin = strings.NewReader(string(stdin))
	var out []byte
	if err := namespace.Do(func() (err error) { out, err = cmd.Output(); return err }, w.node); err != nil {
		w.t.Fatalf("%s: %v: %s", verb, err, out)
	}
	return out
}

// add attaches a pod, and answers in it.
func (w *world) add(namespace_, name string) attached {
	w.t.Helper()
	a := attached{netns: testenv.Netns(w.t)}
	var result struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal(w.call("ADD", namespace_, name, a.netns), &result); err != nil {
		w.t.Fatal(err)
	}
	a.address, _, _ = strings.Cut(result.IPs[0].Address, "/")

	var l net.Listener
	err := namespace.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }, a.netns)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_ = conn.Close()
		}
	}()
	return a
}

// connects reports whether what is in a namespace reaches a pod now. What is dropped takes the time that this
// has: what should pass is given more of it by reaches.
func connects(netns, address string) bool {
	return connectsWithin(netns, address, 200*time.Millisecond)
}

func reaches(netns, address string) bool { return connectsWithin(netns, address, time.Minute) }

func connectsWithin(netns, address string, limit time.Duration) bool {
	return namespace.Do(func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "80"), limit)
		if err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}, netns) == nil
}

func (w *world) rules() string { return w.in(w.node, "nft", "list", "ruleset") }

// isFree reports whether nothing is left in the kernel of policies.
func (w *world) isFree() bool {
	rules := w.rules()
	return !strings.Contains(rules, "policy_trivet") && !strings.Contains(rules, "hold_trivet")
}

// awaitPolicies waits until the plugin is told to hold pods.
func (w *world) awaitPolicies() {
	w.t.Helper()
	w.awaitReport(200, "1 nodes")
	w.await("a configuration that holds pods", func() bool { return w.conf()["networkPolicy"] == true })
}

func TestDefaultDenyIsInForceBeforeAPodsFirstPacket(t *testing.T) {
	w := newPolicyWorld(t)
	w.deny()
	w.start()
	w.awaitPolicies()

	w.putPod("open", "client")
	client := w.add("open", "client")
	for i := range 10 {
		name := fmt.Sprint("server", i)
		w.putPod("closed", name)
		// The ADD returns when the rules are there: the first attempt counts.
		if server := w.add("closed", name); connects(client.netns, server.address) {
			t.Errorf("%s is reached", name)
		} else if !reaches(w.node, server.address) {
			t.Errorf("%s is not reached by the node", name)
		}
	}
	if rules := w.rules(); strings.Contains(rules, "held4 {\n\t\ttype ipv4_addr\n\t\telements") {
		t.Errorf("pods are still held: %s", rules)
	}

	// What is allowed is in force when the ADD returns, too.
	w.deny(networkingv1.NetworkPolicyIngressRule{})
	w.putPod("closed", "welcome")
	if server := w.add("closed", "welcome"); !reaches(client.netns, server.address) {
		t.Error("a pod that all may reach is not reached")
	}

	w.api.Remove("networkpolicies", "closed", "deny")
	w.await("nothing in the kernel", w.isFree)
}

func TestPodsAreHeldWhileNobodyKnowsTheirPolicies(t *testing.T) {
	w := newPolicyWorld(t)
	w.deny(networkingv1.NetworkPolicyIngressRule{})
	w.start()
	w.awaitPolicies()
	w.putPod("open", "client")
	client := w.add("open", "client")

	// The namespace has policies, the last time that anybody knew.
	w.kill()
	w.putPod("closed", "held")
	held := w.add("closed", "held")
	if connects(client.netns, held.address) || connects(held.netns, client.address) {
		t.Error("a pod whose policies nobody has looked at reaches others")
	}
	w.putPod("open", "other")
	// Nobody would let it go if it were held.
	other := w.add("open", "other")
	w.await("a pod of a namespace without policies answers", func() bool {
		return connects(client.netns, other.address)
	})

	// A reboot takes the tables: the plugin itself makes its own.
	w.in(w.node, "nft", "flush", "ruleset")
	w.putPod("closed", "after")
	if after := w.add("closed", "after"); connects(client.netns, after.address) {
		t.Error("after a reboot, a pod is reached before trivet-netd runs")
	}

	w.start()
	w.await("the policies let it go", func() bool { return connects(client.netns, held.address) })
	w.call("DEL", "closed", "held", held.netns)
	w.end(syscall.SIGTERM)
	cleanup := w.command("--cleanup")
	cleanup.SysProcAttr = nil
	if err := namespace.Do(cleanup.Run, w.node); err != nil {
		t.Error(err)
	}
	if !w.isFree() {
		t.Errorf("after --cleanup there is %s", w.rules())
	}
}

func TestPoliciesAreBackWhenSomebodyFlushesThem(t *testing.T) {
	w := newPolicyWorld(t)
	w.deny()
	w.start()
	w.awaitPolicies()
	w.putPod("closed", "server")
	server := w.add("closed", "server")
	want := server.address + " : goto profile"
	for _, damage := range []string{"flush ruleset", "delete table inet policy_trivet",
		"flush map inet policy_trivet ingress4"} {
		w.in(w.node, "nft", damage)
		w.await("rules after "+damage, func() bool { return strings.Contains(w.rules(), want) })
	}
}

func TestWithoutTheRightToReadPoliciesTheNodeSaysSo(t *testing.T) {
	w := newPolicyWorld(t)
	refused := apierrors.NewForbidden(networkingv1.Resource("networkpolicies"), "", nil)
	w.api.FailOn("list networkpolicies", -1, refused)
	w.api.FailOn("watch networkpolicies", -1, refused)
	w.start()
	w.awaitReport(503, "waiting for the list of networkpolicies: "+
		"networkpolicies.networking.k8s.io is forbidden")
	if w.subnets() != "" {
		t.Error("pods may start before their policies can be known")
	}

	// A node that works without policies goes on.
	w.end(syscall.SIGTERM)
	w.policies = false
	w.start()
	w.awaitReport(200, "1 nodes")
	w.end(syscall.SIGTERM)
	w.policies = true
	w.start()
	w.awaitReport(503, "is forbidden")
	if w.conf()["networkPolicy"] != nil {
		t.Error("pods are held, and nobody will let them go")
	}
}
