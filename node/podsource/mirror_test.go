package podsource

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/manifest"
)

// mirrorOf is the pod of the API that shows a static one.
func mirrorOf(static *v1.Pod) *v1.Pod {
	out := static.DeepCopy()
	out.UID = "mirror"
	out.Annotations[v1.MirrorPodAnnotationKey] = string(static.UID)
	out.Status.Phase = v1.PodRunning
	out.Status.StartTime = &metav1.Time{Time: time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)}
	return out
}

func TestMirrorsAreNotAmongThePodsThatRun(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	static := d.only()
	s.server.Put(mirrorOf(static))
	s.start()
	d.only()
	have, known := s.MirrorOf(static)
	if !known || have == nil || have.UID != "mirror" || !s.Shows(have) || StaticOf(have) != static.UID {
		t.Errorf("the mirror is %v", have)
	}
	if got := s.looks.take(); !slices.Contains(got, static.UID) {
		t.Errorf("looks at %v, not at the static pod", got)
	}
}

func TestTheMirrorIsNotKnownBeforeTheList(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	if mirror, known := s.MirrorOf(d.only()); mirror != nil || known {
		t.Errorf("mirror %v, known %v", mirror, known)
	}
}

func TestMirrorWhoseManifestIsGoneHasNothingToShow(t *testing.T) {
	for when, restarted := range map[string]bool{"running": false, "down": true} {
		t.Run("while the agent is "+when, func(t *testing.T) {
			s := source(t)
			d := manifestsOf(t, s)
			d.write("etcd.yaml", etcd)
			s.server.Put(mirrorOf(d.only()))
			if restarted {
				s = sourceOf(t, s.server)
				d.source = s.Source
				s.expect(manifest.SourceFile)
			}

			s.start()
			mirror := s.Get("mirror")
			if !s.Shows(mirror) {
				t.Error("not needed while the manifest is there or not read yet")
			}

			s.looks.take()
			d.remove("etcd.yaml")
			if s.Shows(mirror) || !slices.Contains(s.looks.take(), mirror.UID) {
				t.Error("it has something to show, or nobody looks at it")
			}
		})
	}
}

func TestAStaticPodIsLookedAtWhenItsMirrorIsDeleted(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	static := d.only()
	s.server.Put(mirrorOf(static))
	s.start()
	s.looks.take()
	s.server.Remove("pods", static.Namespace, static.Name)
	s.await("the static pod is looked at", func() bool {
		return slices.Contains(s.looks.take(), static.UID)
	})
	if mirror, known := s.MirrorOf(static); mirror != nil || !known {
		t.Errorf("mirror %v", mirror)
	}
}

func TestAMirrorThatShowsAnotherPodShowsNothing(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	other := mirrorOf(d.only())
	other.Annotations[v1.MirrorPodAnnotationKey] = "of-an-earlier-manifest"
	s.server.Put(other)
	s.start()
	if s.Shows(s.Get("mirror")) {
		t.Error("it shows this pod")
	}
}

func TestRestartedAgentTakesUpWhatItsMirrorShows(t *testing.T) {
	first := source(t)
	d := manifestsOf(t, first)
	d.write("etcd.yaml", etcd)
	first.server.Put(mirrorOf(d.only()))
	for _, apiFirst := range []bool{true, false} {
		s := sourceOf(t, first.server)
		d := directory{&Files{source: s.Source, path: d.path}, t}
		if apiFirst {
			s.start()
			d.read()
		} else {
			d.read()
			s.start()
		}

		if start := d.only().Status.StartTime; start == nil || start.UTC().Hour() != 10 {
			t.Errorf("the API first %v: start time %v", apiFirst, start)
		}
	}
}

func TestThatAStaticPodHasEndedIsNotTakenUp(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	ended := mirrorOf(d.only())
	ended.Status.Phase = v1.PodFailed
	s.server.Put(ended)
	s.start()
	if got := d.only().Status; got.StartTime != nil || got.Phase != v1.PodPending {
		t.Errorf("status %+v", got)
	}
}

func TestWhatAMirrorShowsIsTheStatusOfItsStaticPod(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	s.start()
	static := d.only()
	shown := s.Mirrored(static, mirrorOf(static))
	if shown.UID != static.UID || shown.Status.Phase != v1.PodRunning {
		t.Errorf("shown %+v", shown)
	}
	if s.Get(static.UID).Status.Phase != v1.PodRunning {
		t.Error("the source does not know what is shown")
	}
}
