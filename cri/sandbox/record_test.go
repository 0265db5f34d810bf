package sandbox

import (
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/life"
)

func TestEventsAreOfChangesThatClientsSee(t *testing.T) {
	record := func(s life.SandboxState) *Record { return &Record{ID: "s", State: s} }
	const none = event.Type(-1)
	cases := []struct {
		name          string
		before, after *Record
		want          event.Type
	}{
		{"the record is written", nil, record(life.Making), none},
		{"made", record(life.Making), record(life.Ready), event.Started},
		{"undone", record(life.Making), nil, none},
		{"cannot be undone", record(life.Making), record(life.Stopped), event.Stopped},
		{"stopped", record(life.Ready), record(life.Stopped), event.Stopped},
		{"its network is released", record(life.Stopped), record(life.Stopped), none},
		{"removed", record(life.Stopped), nil, event.Deleted},
		{"removed while it was ready", record(life.Ready), nil, event.Deleted},
	}

	for _, c := range cases {
		now := time.Unix(1, 0)
		e, ok := changed(c.before, c.after, now)
		if !ok {
			e.Type = none
		}
		if e.Type != c.want {
			t.Errorf("%s: event %d, want %d", c.name, e.Type, c.want)
		}
		if ok && (e.ID != "s" || e.Sandbox != "s" || e.At != now) {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}

// A server must find the sandboxes of the version before it.
func TestRecordOfAnEarlierVersionIsRead(t *testing.T) {
	raw, err := proto.Marshal(&runtimeapi.PodSandboxConfig{Hostname: "web"})
	if err != nil {
		t.Fatal(err)
	}

	encoded, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}

	const before, after = `{"ID":"s","State":"ready","Raw":`, `,"Handler":"runc",
		"Created":"2026-11-28T12:00:00Z","Stopped":"0001-01-01T00:00:00Z",
		"IPs":["10.0.0.2"],"Pause":42,"Network":true}`

	var r Record
	if err := json.Unmarshal([]byte(before+string(encoded)+after), &r); err != nil {
		t.Fatal(err)
	}
	if err := r.decode(); err != nil {
		t.Fatal(err)
	}

	if r.State != life.Ready || r.InitPid != 42 || !r.Network || r.Handler != "runc" ||
		len(r.IPs) != 1 || r.PodConfig().Hostname != "web" {
		t.Errorf("%+v", r)
	}
}
