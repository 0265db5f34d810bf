package forget

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

	for _, c := range []struct {
		name   string
		since  string // of the annotation; "": there is none
		exists bool
		want   fate
	}{
		{"the node is there", "", true, keep},
		{"the node is there again", "2026-11-30T11:00:00Z", true, unmark},
		{"the node is gone", "", false, mark},
		{"the node is gone for a moment", "2026-11-30T11:59:00Z", false, keep},
		{"the node is gone for long enough", "2026-11-30T11:00:00Z", false, drop},
		{"the mark is nonsense", "yesterday", false, mark},
		{"the mark is of the future", "2026-11-30T12:00:01Z", false, mark},
	} {
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}}}
		if c.since != "" {
			pv.Annotations[MissingSince] = c.since
		}

		if got := decide(pv, c.exists, now, time.Hour); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
