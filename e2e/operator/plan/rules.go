package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// begin makes the first member, alone: all others join it. Its volume is restored before its pod is made.
func begin(want Want, seen Seen) Step {
	name := First(want.Cluster)
	pod, running := seen.Pods[name]
	claimed := slices.Contains(seen.Claims, name)
	step := Step{
		Member: name,
		Reason: Beginning,
		Text:   "the first member starts",
	}

	switch {
	case slices.Contains(seen.EndingClaims, name):
		step.Do = Wait
	case want.Restored && !running && !restored(seen, claimed, &step):
	case !claimed:
		step.Do = CreateClaim
	case !running:
		step.Do = CreatePod
	case pod.Ended:
		step.Do = DeletePod
	case pod.Answers:
		step.Do = Begin
	default:
		step.Do = Wait
	}

	return step
}

// restored reports whether the volume has the snapshot; what is to be done until then it writes to step. A
// restore that has failed may have left half of it: the next one begins with another volume.
func restored(seen Seen, claimed bool, step *Step) bool {
	step.Reason = Restoring
	step.Text = "the volume of the first member is restored"
	switch {
	case seen.Restore == Failed && claimed:
		step.Do = DeleteClaim
		step.Text = "restoring has failed and begins again"
	case seen.Restore == Failed, seen.Restore == Done && !claimed:
		step.Do = DeleteRestore
	case !claimed:
		step.Do = CreateClaim
	case seen.Restore == NotBegun:
		step.Do = CreateRestore
	case seen.Restore == Running:
		step.Do = Wait
	default:
		return true
	}
	return false
}

// restart makes the pods of members, whether or not a majority of them runs.
func restart(seen Seen) (Step, bool) {
	for _, m := range seen.Members {
		pod, running := seen.Pods[m.Name]
		claimed := slices.Contains(seen.Claims, m.Name)
		step := Step{
			Member: m.Name,
			Reason: Repairing,
			Text:   "member " + m.Name + " starts",
		}

		switch {
		case slices.Contains(seen.EndingClaims, m.Name):
			continue
		case running && pod.Ended && !pod.Ending:
			step.Do = DeletePod
		case claimed && !running:
			step.Do = CreatePod
		case !claimed && !m.Started && seen.Majority:
			step.Do = CreateClaim
		default:
			continue
		}

		return step, true
	}

	return Step{}, false
}

// tidy removes what is left of members that etcd does not have any more.
func tidy(want Want, seen Seen) (Step, bool) {
	step := Step{Reason: Scaling}
	for _, name := range slices.Sorted(maps.Keys(seen.Pods)) {
		if !seen.member(name) && !seen.Pods[name].Ending {
			step.Do = DeletePod
			step.Member = name
			step.Text = "what is left of " + name + " is removed"
			return step, true
		}
	}

	for _, name := range seen.Claims {
		if !seen.member(name) {
			step.Do = DeleteClaim
			step.Member = name
			step.Text = "the volume of " + name + " is removed"
			return step, true
		}
	}

	if want.Restored && seen.Restore != NotBegun {
		step.Do = DeleteRestore
		step.Text = "what has restored the first member is removed"
		return step, true
	}

	return Step{}, false
}

// replace removes a member that has lost its volume, or whose claim somebody has deleted: under its name and
// without its data it would break promises that it has made to the others.
func replace(_ Want, seen Seen) (Step, bool) {
	for _, m := range seen.Members {
		if !seen.lost(m) {
			continue
		}

		step := Step{
			Do:     RemoveMember,
			Member: m.Name,
			ID:     m.ID,
			Reason: Repairing,
			Text:   "member " + m.Name + " has lost its volume and is replaced",
		}
		voters := seen.voters()
		rest := slices.DeleteFunc(voters, func(v Member) bool { return v.ID == m.ID || !seen.well(v) })
		if !m.Learner && len(rest) < len(seen.voters())/2+1 {
			step.Do = Wait
			step.Text = "member " + m.Name + " has lost its volume, and too few others are well"
		}

		return step, true
	}

	return Step{}, false
}

// promote makes a learner a voting member as soon as it has caught up, which etcd itself decides.
func promote(_ Want, seen Seen) (Step, bool) {
	for _, m := range seen.Members {
		if !m.Learner {
			continue
		}

		step := Step{
			Do:     Promote,
			Member: m.Name,
			ID:     m.ID,
			Reason: Scaling,
			Text:   "member " + m.Name + " catches up",
		}
		if !seen.Pods[m.Name].Answers {
			step.Do = Wait
		}

		return step, true
	}

	return Step{}, false
}

// heal waits until all members are well: no other one is touched before.
func heal(_ Want, seen Seen) (Step, bool) {
	for _, m := range seen.Members {
		if !seen.well(m) {
			return Step{
				Do:     Wait,
				Member: m.Name,
				Reason: Repairing,
				Text:   "member " + m.Name + " is not ready",
			}, true
		}
	}
	return Step{}, false
}

// update restarts one member after the other with the new version, the leader last.
func update(want Want, seen Seen) (Step, bool) {
	old := slices.DeleteFunc(slices.Clone(seen.Members), func(m Member) bool {
		return seen.Pods[m.Name].Version == want.Version
	})
	if len(old) == 0 {
		return Step{}, false
	}

	next := slices.MinFunc(old, func(a, b Member) int {
		return cmp.Or(
			falseFirst(seen.Pods[a.Name].Leads, seen.Pods[b.Name].Leads),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return Step{
		Do:     EvictPod,
		Member: next.Name,
		Reason: Updating,
		Text:   fmt.Sprintf("member %s changes to version %s", next.Name, want.Version),
	}, true
}

// scale adds a member or removes one: from where most of them are, and a follower if there is one.
func scale(want Want, seen Seen) (Step, bool) {
	have := len(seen.Members)
	switch {
	case have < want.Replicas:
		name := seen.free(want.Cluster)
		return Step{
			Do:     AddLearner,
			Member: name,
			Reason: Scaling,
			Text:   fmt.Sprintf("member %s is added to %d", name, have),
		}, true

	case have > want.Replicas:
		m := slices.MaxFunc(seen.Members, func(a, b Member) int { return seen.dispensable(a, b) })
		return Step{
			Do:     RemoveMember,
			Member: m.Name,
			ID:     m.ID,
			Reason: Scaling,
			Text:   fmt.Sprintf("member %s of %d is removed", m.Name, have),
		}, true

	default:
		return Step{}, false
	}
}

// rest waits until what is left of other members has gone. Nothing else waits for it: it may be on a node
// that does not come back.
func rest(_ Want, seen Seen) (Step, bool) {
	left := slices.Concat(seen.EndingClaims, slices.Sorted(maps.Keys(seen.Pods)))
	left = slices.DeleteFunc(left, seen.member)
	if len(left) == 0 {
		return Step{}, false
	}
	return Step{
		Do:     Wait,
		Member: left[0],
		Reason: Scaling,
		Text:   "what is left of " + left[0] + " goes",
	}, true
}

// free is the first name that nothing has.
func (s Seen) free(cluster string) string {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s-%d", cluster, n)
		_, running := s.Pods[name]
		claimed := slices.Contains(s.Claims, name) || slices.Contains(s.EndingClaims, name)
		if !running && !claimed && !s.member(name) {
			return name
		}
	}
}

// dispensable compares members by how well the cluster can do without them.
func (s Seen) dispensable(a, b Member) int {
	crowd := map[string]int{}
	for _, pod := range s.Pods {
		crowd[pod.Node]++
	}

	p, q := s.Pods[a.Name], s.Pods[b.Name]
	return cmp.Or(
		cmp.Compare(crowd[p.Node], crowd[q.Node]),
		-falseFirst(p.Leads, q.Leads),
		cmp.Compare(a.Name, b.Name),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
