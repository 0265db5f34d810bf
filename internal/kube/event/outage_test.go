package event

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// hanging is a server that does not answer.
type hanging struct{ fakeSink }

func (s *hanging) Create(ctx context.Context, _ *corev1.Event) (*corev1.Event, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestServerThatDoesNotAnswerHoldsTheEndUpForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(&hanging{}, testConfig())
		ctx, end := context.WithCancel(t.Context())
		for i := range 3 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Stopped", strings.Repeat("x", i+1))
		}

		began := time.Now()
		time.AfterFunc(2*courtesy, end)
		r.Run(ctx)
		if took := time.Since(began); took != 2*courtesy+farewell {
			t.Errorf("it ended after %s", took)
		}
	})
}

// away is a server that is not reached, or answers too late, for as long as it has failures.
type away struct {
	fakeSink
	failures int
	stores   bool // what it does not answer to, too
}

func (s *away) Create(ctx context.Context, e *corev1.Event) (*corev1.Event, error) {
	if _, err := (onceSink{&s.fakeSink}).Create(ctx, e); err != nil {
		return nil, err
	}
	if s.failures == 0 {
		return e, nil
	}

	s.failures--
	if !s.stores {
		s.created = s.created[:len(s.created)-1]
	}
	return nil, context.DeadlineExceeded
}

func TestEventsOfAnOutageAreStoredAfterIt(t *testing.T) {
	for _, stores := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sink := &away{failures: 8, stores: stores}
			r := start(t, sink, testConfig())
			for _, message := range []string{"x", "y", "z", "x"} {
				r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", message)
				time.Sleep(time.Nanosecond) // the name of an event has its time
			}

			time.Sleep(patience)
			settle()
			if len(sink.created) != 3 || len(sink.patches) != 1 ||
				!strings.Contains(sink.patches[0], `"count":2`) {
				t.Errorf("stored: %v, patches %v", sink.created, sink.patches)
			}
			if n := r.lost.Load(); n != 0 {
				t.Errorf("%d are lost", n)
			}
		})
	}
}

func TestAnEventThatIsNotAnsweredForLongMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &away{failures: 1 << 30}
		r := start(t, sink, testConfig())
		r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", "first")
		r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", "second")

		time.Sleep(patience + time.Second)
		synctest.Wait()
		sink.failures = 0
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(sink.created) != 1 || sink.created[0].Message != "second" || r.lost.Load() != 1 {
			t.Errorf("stored: %v, %d lost", sink.created, r.lost.Load())
		}
	})
}

func TestOneObjectDoesNotFillTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &away{failures: 1}
		r := start(t, sink, testConfig())
		for i := range 2 * queueSize {
			r.Pod(testPod(), "", corev1.EventTypeWarning, "Unhealthy", strconv.Itoa(i))
		}

		other := testPod()
		other.UID, other.Name = "other", "other"
		r.Pod(other, "", corev1.EventTypeNormal, "Pulled", "x")

		time.Sleep(patience)
		synctest.Wait()
		last := sink.created[len(sink.created)-1]
		if last.InvolvedObject.UID != "other" || r.lost.Load() != 0 {
			t.Errorf("the last one is of %s, %d are lost", last.InvolvedObject.UID, r.lost.Load())
		}
	})
}

// answering is a server that answers to each event with an error.
type answering struct {
	fakeSink
	err   error
	asked int
}

func (s *answering) Create(context.Context, *corev1.Event) (*corev1.Event, error) {
	s.asked++
	return nil, s.err
}

func TestOnlyWhatTheServerHadNoTimeForIsSentAgain(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("events"), "e", nil)
	for name, c := range map[string]struct {
		err   error
		again bool
	}{
		"the namespace is being deleted":     {forbidden, false},
		"somebody has sent too many events":  {apierrors.NewTooManyRequestsError("limit reached"), false},
		"the server asks for a second":       {apierrors.NewTooManyRequests("busy", 1), true},
		"the server is there, but not ready": {apierrors.NewServiceUnavailable("not yet"), true},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &answering{err: c.err}
			r := start(t, sink, testConfig())
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", "x")
			time.Sleep(2 * patience)
			synctest.Wait()
			if sink.asked > 1 != c.again {
				t.Errorf("%s: it was sent %d times", name, sink.asked)
			}
		})
	}
}
