package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/trivet-node/trivet/internal/kube/history"
)

// maxAsked is how many objects that a list lacks are asked for one by one. If it lacks more, all are listed
// again, in one piece.
const maxAsked = 20

// doubted returns the key of an object that is known and that a list lacks although it may still be there, if
// there is one. After a restart of the server every watch begins with a list that lacks what was deleted
// meanwhile: to ask for that costs each of many nodes a few small answers instead of a second long one.
func (s *store) doubted(present map[string]metav1.Object, version string) string {
	s.mu.Lock()
	lacks := missing(s.objects, present)
	doubts := s.history.Doubts(version)
	s.mu.Unlock()

	switch {
	case len(lacks) == 0:
		return ""
	case !doubts || len(lacks) > maxAsked || s.stillThere == nil:
		return keyOf(lacks[0])
	}
	return s.stillThere(lacks, version)
}

// missing are the objects that are known and that a list lacks.
func missing(known, list map[string]metav1.Object) []metav1.Object {
	var out []metav1.Object
	for key, object := range known {
		if list[key] == nil {
			out = append(out, object)
		}
	}
	return out
}

// asker returns a function that asks the server for objects one by one, as of a version, and returns the key
// of one that may still be there. All answers have to come in the time that one request has.
func (s *store) asker(ctx context.Context) func(lacks []metav1.Object, version string) string {
	return func(lacks []metav1.Object, version string) string {
		ctx, cancel := context.WithTimeout(ctx, s.source.limits.Answer)
		defer cancel()

		for _, object := range lacks {
			s.rounds.Heard()
			if !s.hasGone(ctx, object, version) {
				return keyOf(object)
			}
		}
		return ""
	}
}

// hasGone asks the server for an object. An answer of a server that lags behind the version does not count.
func (s *store) hasGone(ctx context.Context, object metav1.Object, version string) bool {
	field := fields.OneTermEqualSelector(metav1.ObjectNameField, object.GetName()).String()
	if s.field != "" {
		field = s.field + "," + field
	}

	found, asOf, err := s.source.items(ctx, object.GetNamespace(), metav1.ListOptions{
		FieldSelector: field,
		LabelSelector: s.label,
	})
	return err == nil && len(found) == 0 && !history.IsEarlier(asOf, version)
}
