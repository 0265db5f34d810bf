package nodestatus

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

var now = time.Unix(1_800_000_000, 0)

func TestANodeIsReadyOnlyWithItsRuntimeAndNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		info runtime.Info
		err  error
		want string
	}{
		"good": {runtime.Info{RuntimeReady: true, NetworkReady: true}, nil, ""},
		"no runtime": {
			runtime.Info{},
			errors.New("connection refused"),
			"container runtime is down: connection refused",
		},
		"no network": {
			runtime.Info{RuntimeReady: true, NetworkWhy: "NoConfig: cni"},
			nil,
			"NetworkReady=false reason:NoConfig: cni",
		},
	} {
		f := readiness(c.info, c.err)
		if f.on != (c.want == "") || !strings.Contains(f.message, c.want) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestTransitionTimesMoveOnlyWithTheStatus(t *testing.T) {
	s := &v1.NodeStatus{
		Conditions: []v1.NodeCondition{{Type: v1.NodeNetworkUnavailable, Status: v1.ConditionFalse}},
	}
	good := []finding{{kind: v1.NodeReady, on: true, reason: "KubeletReady", message: "ok"}}
	bad := []finding{{kind: v1.NodeReady, reason: "KubeletNotReady", message: "bad"}}
	if !apply(s, good, now) {
		t.Error("a new condition is no change")
	}
	if apply(s, good, now.Add(time.Minute)) {
		t.Error("the time alone is a change")
	}

	c := findCondition(s, v1.NodeReady)
	if !c.LastTransitionTime.Time.Equal(now) || !c.LastHeartbeatTime.Time.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v", c)
	}

	if !apply(s, bad, now.Add(time.Hour)) ||
		!findCondition(s, v1.NodeReady).LastTransitionTime.Time.Equal(now.Add(time.Hour)) {
		t.Error("a change of status did not move its time")
	}

	patch, err := statusPatch(s, s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(patch), string(v1.NodeNetworkUnavailable)) {
		t.Errorf("the patch writes a condition of others: %s", patch)
	}

	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		t.Fatal(err)
	}
}
