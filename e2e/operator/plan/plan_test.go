package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/operator/plan"
)

// three is a cluster of three members that is as it should be, with the leader db-1.
func three() (plan.Want, plan.Seen) {
	seen := plan.Seen{
		Begun:    true,
		Majority: true,
		Pods:     map[string]plan.Pod{},
	}
	for i := range 3 {
		add(&seen, i, fmt.Sprintf("node%d", i))
	}
	leader := seen.Pods["db-1"]
	leader.Leads = true
	seen.Pods["db-1"] = leader
	return plan.Want{Cluster: "db", Replicas: 3, Version: "3.6.1"}, seen
}

func add(seen *plan.Seen, i int, node string) {
	name := fmt.Sprintf("db-%d", i)
	seen.Members = append(seen.Members, plan.Member{
		ID:      uint64(i + 1),
		Name:    name,
		Started: true,
	})
	seen.Claims = append(seen.Claims, name)
	seen.Pods[name] = plan.Pod{
		Node:    node,
		Version: "3.6.1",
		Answers: true,
		Ready:   true,
	}
}

// situation is how a cluster differs from what three returns, and the step that it needs.
type situation struct {
	name   string
	change func(*plan.Want, *plan.Seen)
	step   string
}

// scaled are clusters whose number of members changes.
var scaled = []situation{
	{"nothing to do", func(*plan.Want, *plan.Seen) {}, "settled"},
	{"more members", func(w *plan.Want, _ *plan.Seen) { w.Replicas = 5 }, "add learner db-3"},
	{"a name is used again", func(w *plan.Want, s *plan.Seen) {
		w.Replicas = 5
		s.Members = slices.Delete(s.Members, 0, 1)
		s.Claims = slices.Delete(s.Claims, 0, 1)
		delete(s.Pods, "db-0")
	}, "add learner db-0"},
	{"but not before its claim is gone", func(w *plan.Want, s *plan.Seen) {
		w.Replicas = 5
		s.EndingClaims = []string{"db-3"}
	}, "add learner db-4"},
	{"the new member has no volume", func(_ *plan.Want, s *plan.Seen) {
		s.Members = append(s.Members, plan.Member{ID: 9, Name: "db-3", Learner: true})
	}, "create claim db-3"},
	{"and no pod", func(_ *plan.Want, s *plan.Seen) {
		s.Members = append(s.Members, plan.Member{ID: 9, Name: "db-3", Learner: true})
		s.Claims = append(s.Claims, "db-3")
	}, "create pod db-3"},
	{"and does not answer", func(_ *plan.Want, s *plan.Seen) {
		add(s, 3, "node0")
		s.Members[3].Learner = true
		s.Pods["db-3"] = plan.Pod{Version: "3.6.1"}
	}, "wait db-3"},
	{"it answers", func(_ *plan.Want, s *plan.Seen) {
		add(s, 3, "node0")
		s.Members[3].Learner = true
	}, "promote db-3"},
	{"fewer members: a follower of the last name", func(w *plan.Want, s *plan.Seen) {
		w.Replicas = 1
	}, "remove member db-2"},
	{"fewer members: where two are", func(w *plan.Want, s *plan.Seen) {
		add(s, 3, "node0")
		add(s, 4, "node4")
	}, "remove member db-3"},
	{"its pod is left", func(_ *plan.Want, s *plan.Seen) {
		add(s, 3, "node0")
		s.Members = s.Members[:3]
	}, "delete pod db-3"},
	{"its claim is left", func(_ *plan.Want, s *plan.Seen) {
		s.Claims = append(s.Claims, "db-3")
	}, "delete claim db-3"},
	{"and goes", func(_ *plan.Want, s *plan.Seen) {
		s.EndingClaims = []string{"db-3"}
	}, "wait db-3"},
}

// disturbed are clusters to which something happens.
var disturbed = []situation{
	{"nothing is removed without a majority", func(_ *plan.Want, s *plan.Seen) {
		s.Claims = append(s.Claims, "db-3")
		s.Majority = false
	}, "wait"},
	{"a pod is gone", func(_ *plan.Want, s *plan.Seen) { delete(s.Pods, "db-1") }, "create pod db-1"},
	{"all pods are gone", func(_ *plan.Want, s *plan.Seen) {
		clear(s.Pods)
		s.Majority = false
	}, "create pod db-0"},
	{"a pod was evicted", func(_ *plan.Want, s *plan.Seen) {
		s.Pods["db-1"] = plan.Pod{Ended: true}
	}, "delete pod db-1"},
	{"a member does not answer", func(w *plan.Want, s *plan.Seen) {
		w.Version = "3.7.0"
		s.Pods["db-2"] = plan.Pod{Version: "3.6.1"}
	}, "wait db-2"},
	{"another version: the leader comes last", func(w *plan.Want, s *plan.Seen) {
		w.Version = "3.7.0"
		pod := s.Pods["db-0"]
		pod.Version = "3.7.0"
		s.Pods["db-0"] = pod
	}, "evict pod db-2"},
	{"a volume is lost", func(_ *plan.Want, s *plan.Seen) {
		s.Claims = []string{"db-0", "db-1"}
		delete(s.Pods, "db-2")
	}, "remove member db-2"},
	{"a claim is being deleted", func(_ *plan.Want, s *plan.Seen) {
		s.Claims = []string{"db-0", "db-2"}
		s.EndingClaims = []string{"db-1"}
	}, "remove member db-1"},
	{"too many volumes are lost", func(_ *plan.Want, s *plan.Seen) {
		s.Claims = []string{"db-0"}
	}, "wait db-1"},
}

func TestOneStepForEachSituation(t *testing.T) {
	for _, c := range slices.Concat(scaled, disturbed) {
		want, seen := three()
		c.change(&want, &seen)
		if got := plan.Decide(want, seen).String(); got != c.step {
			t.Errorf("%s: %q, want %q", c.name, got, c.step)
		}
	}
}

func TestClusterBeginsWithOneMember(t *testing.T) {
	claimed := plan.Seen{Claims: []string{"db-0"}}

	for _, c := range []struct {
		seen     plan.Seen
		restored bool
		step     string
	}{
		{plan.Seen{}, false, "create claim db-0"},
		{claimed, false, "create pod db-0"},
		{plan.Seen{Claims: claimed.Claims, Pods: map[string]plan.Pod{"db-0": {}}}, false, "wait db-0"},
		{plan.Seen{Claims: claimed.Claims, Pods: map[string]plan.Pod{"db-0": {Ended: true}}}, false,
			"delete pod db-0"},
		{plan.Seen{Claims: claimed.Claims, Pods: map[string]plan.Pod{"db-0": {Answers: true}}}, false,
			"begin db-0"},
		{plan.Seen{}, true, "create claim db-0"},
		{claimed, true, "create restore db-0"},
		{plan.Seen{Claims: claimed.Claims, Restore: plan.Running}, true, "wait db-0"},
		{plan.Seen{Claims: claimed.Claims, Restore: plan.Done}, true, "create pod db-0"},
		{plan.Seen{Restore: plan.Done}, true, "delete restore db-0"},
		{plan.Seen{Claims: claimed.Claims, Restore: plan.Failed}, true, "delete claim db-0"},
		{plan.Seen{EndingClaims: claimed.Claims, Restore: plan.Failed}, true, "wait db-0"},
		{plan.Seen{Restore: plan.Failed}, true, "delete restore db-0"},
	} {
		want, _ := three()
		want.Restored = c.restored

		if got := plan.Decide(want, c.seen).String(); got != c.step {
			t.Errorf("%+v, restored %v: %q, want %q", c.seen, c.restored, got, c.step)
		}
	}
}

// TestNoStepTakesAVoterFromAClusterThatIsNotWell draws situations at random. Whatever is seen, a step never
// leaves fewer voting members that are well than a majority needs, and none removes a volume that a member
// has.
func TestNoStepTakesAVoterFromAClusterThatIsNotWell(t *testing.T) {
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 0))
		want, seen := drawn(r)
		step := plan.Decide(want, seen)
		if step.Do == plan.DeleteClaim && slices.ContainsFunc(seen.Members, func(m plan.Member) bool {
			return m.Name == step.Member
		}) {
			t.Fatalf("seed %d: %s is a member's: %+v", seed, step, seen)
		}
		if step.Do != plan.RemoveMember && step.Do != plan.EvictPod || learns(seen, step.Member) {
			continue
		}

		voters, well := 0, 0
		for _, m := range seen.Members {
			pod := seen.Pods[m.Name]
			if m.Learner {
				continue
			}

			voters++
			claimed := slices.Contains(seen.Claims, m.Name)
			if m.Name != step.Member && pod.Ready && pod.Answers && !pod.Ending && claimed {
				well++
			}
		}
		if left := voters / 2; !seen.Majority || well < left+1 && voters > 2 {
			t.Fatalf("seed %d: %s leaves %d of %d: %+v", seed, step, well, voters, seen)
		}
	}
}

func learns(seen plan.Seen, name string) bool {
	return slices.ContainsFunc(seen.Members, func(m plan.Member) bool { return m.Name == name && m.Learner })
}

func drawn(r *rand.Rand) (plan.Want, plan.Seen) {
	want, seen := three()
	want.Replicas = 1 + 2*r.IntN(3)
	want.Version = []string{"3.6.1", "3.7.0"}[r.IntN(2)]
	seen.Majority = r.IntN(5) > 0
	for i := range r.IntN(3) {
		add(&seen, 3+i, fmt.Sprintf("node%d", r.IntN(3)))
		seen.Members[3+i].Learner = i == 1 && r.IntN(2) == 0
	}

	for name, pod := range seen.Pods {
		if r.IntN(8) > 0 {
			continue
		}
		switch r.IntN(5) {
		case 0:
			delete(seen.Pods, name)
			continue
		case 1:
			pod.Answers = false
		case 2:
			pod.Ready = false
		case 3:
			pod.Ending = true
		default:
			seen.Claims = slices.DeleteFunc(seen.Claims, func(c string) bool { return c == name })
		}
		seen.Pods[name] = pod
	}

	return want, seen
}

func TestStepSaysWhy(t *testing.T) {
	want, seen := three()
	want.Version = "3.7.0"
	step := plan.Decide(want, seen)
	if !strings.Contains(step.Text, "db-0") || step.Reason != plan.Updating {
		t.Errorf("reason %q: %q", step.Reason, step.Text)
	}
}
