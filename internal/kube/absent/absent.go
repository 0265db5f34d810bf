// Package absent finds out whether objects that a list lacks have gone, by asking the server for each of
// them. After a restart of the server every watch begins with a list that lacks what was deleted meanwhile:
// that costs each of many nodes a few small answers, in place of a second long list.
package absent

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/trivet-node/trivet/internal/kube/history"
)

// Most is how many objects are asked for. More of them may all still be there: a list of all is cheaper.
const Most = 20

// Lister lists the objects of a name, one at most, and returns how many there are, and the version of the
// list.
type Lister func(ctx context.Context, namespace, name string) (found int, version string, err error)

// From returns the objects that are known and that a list lacks.
func From(known, list map[string]metav1.Object) []metav1.Object {
	var out []metav1.Object
	for key, object := range known {
		if list[key] == nil {
			out = append(out, object)
		}
	}
	return out
}

// Left returns one of the objects that may still be there as of a version, nil if all have gone. The answers
// of a server that lags behind do not count.
func Left(ctx context.Context, objects []metav1.Object, version string, list Lister) metav1.Object {
	if len(objects) > Most {
		return objects[0]
	}
	for _, object := range objects {
		found, asOf, err := list(ctx, object.GetNamespace(), object.GetName())
		if err != nil || found > 0 || history.IsEarlier(asOf, version) {
			return object
		}
	}
	return nil
}

// Selector adds a name to a field selector, which may be empty.
func Selector(selector, name string) string {
	named := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	if selector == "" {
		return named
	}
	return selector + "," + named
}
