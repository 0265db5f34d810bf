package check

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// admit evaluates a policy as the API server does, and returns the expression that refuses the request;
// empty: none.
func admit(t *testing.T, p *admissionregistrationv1.ValidatingAdmissionPolicy, input map[string]any) string {
	t.Helper()

	options := []cel.EnvOption{cel.OptionalTypes(), ext.Strings()}
	for _, name := range []string{"object", "oldObject", "request", "params", "variables"} {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		t.Fatal(err)
	}

	variables := map[string]any{}
	input["variables"] = variables
	evaluate := func(expression string) any {
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			t.Fatalf("%s: %v", expression, issues.Err())
		}
		program, err := env.Program(ast)
		if err != nil {
			t.Fatal(err)
		}
		value, _, err := program.Eval(input)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		return value.Value()
	}

	for _, v := range p.Spec.Variables {
		variables[v.Name] = evaluate(v.Expression)
	}
	for _, v := range p.Spec.Validations {
		if evaluate(v.Expression) != true {
			return v.Message + v.MessageExpression
		}
	}
	return ""
}

func TestInstallersMayWriteWhatIsTheirsOfTheirNode(t *testing.T) {
	const before = `
metadata:
  name: n1
  labels: {zone: a}
  annotations: {theirs: x, installer.trivet.dev/cri: y}
spec: {podCIDR: 10.0.0.0/24, taints: [{key: a, effect: NoSchedule}]}`

	for name, c := range map[string]struct{ from, to, refused string }{
		"nothing":                {"", "", ""},
		"cordon":                 {"spec: {", "spec: {unschedulable: true, ", ""},
		"own label":              {"zone: a", "zone: a, installer.trivet.dev/cri: present", ""},
		"own annotation":         {", installer.trivet.dev/cri: y", "", ""},
		"another node":           {"name: n1", "name: n2", "own Node only"},
		"label":                  {"zone: a", "zone: b", "labels"},
		"label more":             {"zone: a", "zone: a, node-role.kubernetes.io/control-plane: x", "labels"},
		"label less":             {"zone: a", "", "labels"},
		"annotation less":        {"theirs: x, ", "", "annotations"},
		"annotation":             {"theirs: x", "theirs: z", "annotations"},
		"finalizer":              {"name: n1", "name: n1\n  finalizers: [x]", "finalizers"},
		"taint":                  {"key: a", "key: b", "unschedulable"},
		"no taints":              {", taints: [{key: a, effect: NoSchedule}]", "", "unschedulable"},
		"provider":               {"spec: {", "spec: {providerID: x, ", "unschedulable"},
		"labels where none were": {"  labels: {zone: a}\n", "", "labels"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, part := range []string{"../cri", "../node"} {
				for _, object := range render(t, part) {
					policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
					if !ok {
						continue
					}

					after := strings.Replace(before, c.from, c.to, 1)
					extra := map[string]any{"authentication.kubernetes.io/node-name": []any{"n1"}}
					why := admit(t, policy, map[string]any{
						"object":    document(t, after),
						"oldObject": document(t, before),
						"request":   map[string]any{"userInfo": map[string]any{"extra": extra}},
					})
					if (why == "") != (c.refused == "") || !strings.Contains(why, c.refused) {
						t.Errorf("%s: refused because %q, want %q", part, why, c.refused)
					}
				}
			}
		})
	}
}

// forgetPolicy is one of those that hold trivet-csi forget-node.
func forgetPolicy(t *testing.T, name string) *admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	return policyIn(t, "../csi/forget/forget.yaml", name)
}

// policyIn is the policy of that name in a file.
func policyIn(t *testing.T, file, name string) *admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	for _, object := range decode(t, text) {
		policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if ok && policy.Name == name {
			return policy
		}
	}
	t.Fatalf("there is no policy %s", name)
	return nil
}

// A node exists if it has the name, or the label, that volumes and snapshots have.
func TestWhatIsOnNodesThatExistIsNotForgotten(t *testing.T) {
	const pv = `spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
		{key: topology.csi.trivet.dev/node, operator: In, values: [n1]}]}]}}}`
	const content = `{metadata: {annotations: {topology.csi.trivet.dev/node: n1}},
		spec: {source: {volumeHandle: v}}}`

	for name, object := range map[string]string{
		"trivet-csi-forget-missing":           pv,
		"trivet-csi-forget-missing-snapshots": content,
	} {
		policy := forgetPolicy(t, name)

		for node, refused := range map[string]bool{
			"{name: n1}":                     true,
			"{name: n2}":                     false,
			"{name: n2, labels: {zone: n1}}": false,
			"{name: n2, labels: {topology.csi.trivet.dev/node: n1}}": true,
			"{name: n2, labels: {topology.csi.trivet.dev/node: n2}}": false,
		} {
			why := admit(t, policy, map[string]any{
				"oldObject": document(t, object),
				"params":    document(t, "metadata: "+node),
			})
			if (why != "") != refused {
				t.Errorf("%s, node %s: refused because %q, want refused: %t", name, node, why, refused)
			}
		}
	}
}

// The Node authorizer lets a node read the Secrets of the volumes whose claims its pods have.
func TestVolumesOfADriverLeadToNoOtherSecrets(t *testing.T) {
	policy := policyIn(t, "../csi/policy.yaml", "trivet-csi-volumes")
	const made = `
metadata: {name: pv, finalizers: [a]}
spec:
  capacity: {storage: 1Gi}
  claimRef: {namespace: team, name: data}
  csi: {driver: csi.trivet.dev, volumeHandle: pv, nodeStageSecretRef: {namespace: team, name: key}}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
    {key: topology.csi.trivet.dev/node, operator: In, values: [n1]}]}]}}`
	const (
		claim  = "claimRef: {namespace: team, name: data}"
		stage  = "nodeStageSecretRef: {namespace: team, name: key}"
		expand = "nodeExpandSecretRef: {namespace: x, name: y}"
	)

	for name, c := range map[string]struct{ operation, from, to, refused string }{
		"made":                 {"CREATE", "", "", ""},
		"made without Secrets": {"CREATE", ", " + stage, "", ""},
		"Secret of others":     {"CREATE", stage, strings.Replace(stage, "team", "x", 1), "staging only"},
		"claim of others":      {"CREATE", claim, strings.Replace(claim, "team", "x", 1), "staging only"},
		"for another call":     {"CREATE", "nodeStage", "nodePublish", "staging only"},
		"let go":               {"UPDATE", ", finalizers: [a]", "", ""},
		"grown":                {"UPDATE", "1Gi", "2Gi", ""},
		"given to others":      {"UPDATE", claim, strings.Replace(claim, "team", "x", 1), "which claim"},
		"given to a claim":     {"UPDATE", claim, strings.Replace(claim, "data", "x", 1), "which claim"},
		"taken from its claim": {"UPDATE", "  " + claim + "\n", "", "which claim"},
		"another Secret":       {"UPDATE", "name: key", "name: x", "which claim"},
		"one more Secret":      {"UPDATE", stage, stage + ", " + expand, "which claim"},
	} {
		written := strings.Replace(made, c.from, c.to, 1)
		input := map[string]any{
			"object":    document(t, written),
			"oldObject": nil,
			"request": map[string]any{"operation": c.operation, "userInfo": map[string]any{
				"username": "csi.trivet.dev:node:n1",
			}},
		}
		if c.operation == "UPDATE" {
			input["oldObject"] = document(t, made)
		}
		why := admit(t, policy, input)
		if (why == "") != (c.refused == "") || !strings.Contains(why, c.refused) {
			t.Errorf("%s: refused because %q, want %q", name, why, c.refused)
		}
	}
}

// A snapshot that no driver has taken is only a wish, unless somebody has made it by hand.
func TestSnapshotsThatAreOnNoNodeAreForgottenUnlessTheyWereMadeByHand(t *testing.T) {
	policy := forgetPolicy(t, "trivet-csi-forget-missing-snapshots")
	for source, refused := range map[string]bool{
		"volumeHandle: v":       false,
		"volumeHandles: [v, w]": false,
		"snapshotHandle: s":     true,
		"groupSnapshotHandles: {volumeGroupSnapshotHandle: g}": true,
	} {
		why := admit(t, policy, map[string]any{
			"oldObject": document(t, "{metadata: {name: c}, spec: {source: {"+source+"}}}"),
			"params":    document(t, "metadata: {name: n1}"),
		})
		if (why != "") != refused {
			t.Errorf("%s: refused because %q, want refused: %t", source, why, refused)
		}
	}
}

func TestForgettingASnapshotChangesNothingElseOfIt(t *testing.T) {
	policy := forgetPolicy(t, "trivet-csi-forget-snapshots")
	const before = `
metadata:
  name: c
  finalizers: [a, b]
  labels: {zone: a}
  annotations: {topology.csi.trivet.dev/node: n1}
spec: {driver: csi.trivet.dev, deletionPolicy: Delete}`

	for name, c := range map[string]struct{ from, to, refused string }{
		"a mark":         {"node: n1}", "node: n1, csi.trivet.dev/node-missing-since: x}", ""},
		"another node":   {"node: n1}", "node: n2}", "annotation"},
		"a policy":       {"Policy: Delete", "Policy: Retain", "what a snapshot is"},
		"a label":        {"zone: a", "zone: b", "what a snapshot is"},
		"no finalizer":   {"[a, b]", "[a]", "being deleted only"},
		"another driver": {"driver: csi.trivet.dev", "driver: x", "what a snapshot is"},
	} {
		why := admit(t, policy, map[string]any{
			"object":    document(t, strings.Replace(before, c.from, c.to, 1)),
			"oldObject": document(t, before),
			"request":   map[string]any{"operation": "UPDATE"},
		})
		if (why == "") != (c.refused == "") || !strings.Contains(why, c.refused) {
			t.Errorf("%s: refused because %q, want %q", name, why, c.refused)
		}
	}

	deleted := strings.Replace(before, "name: c", "name: c\n  deletionTimestamp: x", 1)
	for finalizers, refused := range map[string]bool{"[b]": false, "[b, c]": true} {
		why := admit(t, policy, map[string]any{
			"object":    document(t, strings.Replace(deleted, "[a, b]", finalizers, 1)),
			"oldObject": document(t, deleted),
			"request":   map[string]any{"operation": "UPDATE"},
		})
		if (why != "") != refused {
			t.Errorf("finalizers %s: refused because %q, want refused: %t", finalizers, why, refused)
		}
	}
}

func document(t *testing.T, text string) (object map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// Roles know no versions: a policy that names some lets an account do anything to objects of others, as where
// a cluster serves only an earlier one.
func TestPoliciesHoldInAllVersionsThatAClusterMayServe(t *testing.T) {
	found := 0
	for _, file := range []string{"../csi/forget/forget.yaml", "../csi/policy.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range decode(t, text) {
			policy, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
			if !ok {
				continue
			}
			for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
				// What has no group of its own has only had one version.
				if slices.Equal(rule.APIGroups, []string{""}) {
					continue
				}
				found++
				if !slices.Equal(rule.APIVersions, []string{"*"}) {
					t.Errorf("%s: policy %s: versions %q of %q",
						file, policy.Name, rule.APIVersions, rule.APIGroups)
				}
			}
		}
	}
	if found < 6 {
		t.Errorf("only %d rules are of groups", found)
	}
}
