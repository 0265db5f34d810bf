// Package plan decides what an etcd cluster needs next: one step at a time, each of which may be repeated
// after a kill. It is pure; what was seen is an argument.
package plan

import (
	"fmt"
	"slices"
)

// Want is what the user wants.
type Want struct {
	Cluster  string
	Replicas int
	Version  string

	// Restored says that the first member starts with a snapshot.
	Restored bool
}

// Seen is what was observed. A claim that is not there is in neither list of claims.
type Seen struct {
	// Begun says that the cluster has had members and may have data: it is never made again.
	Begun bool

	// Majority says that Members are what a majority of the members has agreed on just now. Without it they
	// are what was known last.
	Majority bool
	Members  []Member

	Pods         map[string]Pod
	Claims       []string
	EndingClaims []string
	Restore      Restore
}

// Member of etcd. Names are those of pods and claims.
type Member struct {
	ID      uint64
	Name    string
	Learner bool

	// Started says that it has joined at some time, so that it has data that must not be lost.
	Started bool
}

// Pod of a member.
type Pod struct {
	Node    string
	Version string

	// Answers says that its etcd answers, and Leads that this one is the leader.
	Answers bool
	Leads   bool

	// Ready is the pod's condition, Ending says that it is being deleted, Ended that its containers never run
	// again.
	Ready  bool
	Ending bool
	Ended  bool
}

// Restore is how far the restoring of the first member's volume is.
type Restore int

// The states of Restore.
const (
	NotBegun Restore = iota
	Running
	Done
	Failed
)

// Verb is what is to be done.
type Verb string

// The verbs.
const (
	Settled       Verb = "settled"
	Wait          Verb = "wait"
	CreateClaim   Verb = "create claim"
	DeleteClaim   Verb = "delete claim"
	CreatePod     Verb = "create pod"
	DeletePod     Verb = "delete pod"
	EvictPod      Verb = "evict pod"
	CreateRestore Verb = "create restore"
	DeleteRestore Verb = "delete restore"
	Begin         Verb = "begin"
	AddLearner    Verb = "add learner"
	Promote       Verb = "promote"
	RemoveMember  Verb = "remove member"
)

// Reasons of the condition Ready.
const (
	AsSpecified = "AsSpecified"
	Beginning   = "Beginning"
	Restoring   = "Restoring"
	NoMajority  = "NoMajority"
	Repairing   = "Repairing"
	Updating    = "Updating"
	Scaling     = "Scaling"
)

// Step is the next one.
type Step struct {
	Do     Verb
	Member string // its name
	ID     uint64 // for Promote and RemoveMember
	Reason string
	Text   string // why, for people
}

func (s Step) String() string {
	if s.Member == "" {
		return string(s.Do)
	}
	return fmt.Sprintf("%s %s", s.Do, s.Member)
}

// Decide is the next step. Nothing but the first member is made before etcd has agreed to it, and no voting
// member is taken from a cluster of which another one is not well.
func Decide(want Want, seen Seen) Step {
	if !seen.Begun {
		return begin(want, seen)
	}
	if step, found := restart(seen); found {
		return step
	}
	if !seen.Majority {
		return Step{
			Do:     Wait,
			Reason: NoMajority,
			Text:   "no majority of the members answers",
		}
	}

	for _, rule := range []func(Want, Seen) (Step, bool){tidy, replace, promote, heal, scale, update, rest} {
		if step, found := rule(want, seen); found {
			return step
		}
	}
	return Step{
		Do:     Settled,
		Reason: AsSpecified,
		Text:   fmt.Sprintf("%d members run version %s", want.Replicas, want.Version),
	}
}

// First is the name of the first member of a cluster.
func First(cluster string) string { return cluster + "-0" }

func (s Seen) member(name string) bool {
	return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Name == name })
}

// lost reports whether a member's data is gone, or goes as soon as its pod does.
func (s Seen) lost(m Member) bool { return m.Started && !slices.Contains(s.Claims, m.Name) }

// well reports whether a member has its volume, answers and serves clients.
func (s Seen) well(m Member) bool {
	pod := s.Pods[m.Name]
	return pod.Answers && pod.Ready && !pod.Ending && slices.Contains(s.Claims, m.Name)
}

func (s Seen) voters() []Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return m.Learner })
}
