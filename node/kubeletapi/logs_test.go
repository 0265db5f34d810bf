package kubeletapi

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/podlog/containerlog"
)

func TestLogOptionsAreThoseOfTheAPI(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for query, want := range map[string]containerlog.Options{
		"":                                {Tail: -1},
		"tailLines=0":                     {},
		"tailLines=7&limitBytes=9":        {Tail: 7, LimitBytes: 9},
		"follow=true&timestamps=1":        {Tail: -1, Follow: true, Timestamps: true},
		"follow=false&timestamps=0":       {Tail: -1},
		"stream=All":                      {Tail: -1},
		"stream=Stdout":                   {Tail: -1, Stream: "stdout"},
		"stream=Stderr":                   {Tail: -1, Stream: "stderr"},
		"sinceSeconds=5":                  {Tail: -1, Since: now.Add(-5 * time.Second)},
		"sinceTime=2026-01-01T00:00:00Z":  {Tail: -1, Since: now.Truncate(24*time.Hour).AddDate(0, 0, -1)},
		"sinceSeconds=999999999999999999": {Tail: -1, Since: now.Add(-maxSince * time.Second)},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}

		got, previous, err := logOptions(values, now)
		if err != nil || previous {
			t.Errorf("%q: previous %v, %v", query, previous, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(containerlog.Options{}, "Running")); diff != "" {
			t.Errorf("%q: %s", query, diff)
		}
	}

	if _, previous, err := logOptions(url.Values{"previous": {"true"}}, now); !previous || err != nil {
		t.Errorf("previous %v, %v", previous, err)
	}
}

func TestLogOptionsThatAreNotValidAreRefused(t *testing.T) {
	for query, want := range map[string]string{
		"tailLines=-1":               "tailLines",
		"tailLines=many":             "tailLines",
		"limitBytes=0":               "limitBytes must be greater than 0",
		"limitBytes=-1":              "limitBytes",
		"follow=perhaps":             "follow",
		"timestamps=2":               "timestamps",
		"previous=yes":               "previous",
		"stream=stdin":               "stream",
		"sinceTime=yesterday":        "sinceTime",
		"sinceSeconds=-3":            "sinceSeconds",
		"tailLines=x&sinceSeconds=y": "tailLines",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}

		_, _, err = logOptions(values, time.Now())
		if err == nil || !strings.HasPrefix(err.Error(), want) || codeOf(err) != 400 {
			t.Errorf("%q: %v", query, err)
		}
	}
}

func TestWhyAContainerWaits(t *testing.T) {
	for reason, want := range map[string]string{
		"":                  "ContainerCreating",
		"ErrImagePull":      "image can't be pulled",
		"ImagePullBackOff":  "image can't be pulled",
		"PodInitializing":   "PodInitializing",
		"CrashLoopBackOff":  "CrashLoopBackOff",
		"CreateConfigError": "CreateConfigError",
	} {
		pod := &v1.Pod{}
		if reason != "" {
			waits := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
			pod.Status.InitContainerStatuses = []v1.ContainerStatus{{Name: "c", State: waits}}
		}

		if got := waiting(pod, "c"); got != want {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
}

func TestTheLogOfAnInstanceThatWasRemovedIsFoundByTheStatus(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u"}}
	root := t.TempDir()
	dir := filepath.Join(root, "ns_web_u", "c")
	if err := errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "1.log"), nil, 0o644),
	); err != nil {
		t.Fatal(err)
	}

	waiting := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "trivet-cri://id"}}
	for _, c := range []struct {
		name   string
		status v1.ContainerStatus
		kept   bool
	}{
		{
			"the next one runs",
			v1.ContainerStatus{RestartCount: 2, State: running, LastTerminationState: ended},
			true,
		},
		{
			"there is no next one",
			v1.ContainerStatus{RestartCount: 1, State: waiting, LastTerminationState: ended},
			true,
		},
		{"it is the first one", v1.ContainerStatus{State: running}, false},
		{
			"its log is gone",
			v1.ContainerStatus{RestartCount: 1, State: running, LastTerminationState: ended},
			false,
		},
	} {
		c.status.Name = "c"
		pod.Status.ContainerStatuses = []v1.ContainerStatus{c.status}
		path, kept := lookup{logs: root}.keptLog(pod, "c")
		if kept != c.kept || kept && path != filepath.Join(dir, "1.log") {
			t.Errorf("%s: %q, %v", c.name, path, kept)
		}
	}
}

type fixedPods []*v1.Pod

func (p fixedPods) Pods() []*v1.Pod { return p }

func TestPodsAreFoundByNameAndUID(t *testing.T) {
	mirror := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace:   "ns",
		Name:        "static",
		UID:         "mirror",
		Annotations: map[string]string{annotationMirror: "hash"},
	}}

	l := lookup{pods: fixedPods{mirror}}
	for key, found := range map[[3]string]bool{
		{"ns", "static", ""}:       true,
		{"ns", "static", "mirror"}: true,
		{"ns", "static", "hash"}:   true,
		{"ns", "static", "other"}:  false,
		{"ns", "other", ""}:        false,
		{"other", "static", ""}:    false,
	} {
		if p, err := l.pod(key[0], key[1], key[2]); (p != nil) != found || (err == nil) != found {
			t.Errorf("%v: %v, %v", key, p, err)
		}
	}
}

func TestTimeOfACheckpointIsBounded(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1":                    checkpointTime,
		"300":                  5 * time.Minute,
		"99999999999":          maxCheckpointTime,
		"9223372036854775807":  maxCheckpointTime,
		"99999999999999999999": 0,
		"-1":                   0,
		"soon":                 0,
	} {
		got, err := checkpointLimit([]string{"7", text})
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}

	if got, err := checkpointLimit(nil); got != checkpointTime || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
}
