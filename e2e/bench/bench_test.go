package bench

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestAnAccountThatComesLaterIsAwaited(t *testing.T) {
	client := fake.NewClientset()
	asked := 0
	client.PrependReactor("get", "serviceaccounts",
		func(clienttesting.Action) (bool, runtime.Object, error) {
			if asked++; asked < 3 {
				return false, nil, nil // not found
			}
			return true, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, nil
		})

	b := &Bench{
		Client:    client,
		Namespace: "bench",
	}
	if err := b.Prepare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
}

func TestAnAccountThatDoesNotComeIsNamedInTheError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := fake.NewClientset()
	client.PrependReactor("get", "serviceaccounts",
		func(clienttesting.Action) (bool, runtime.Object, error) {
			cancel()
			return false, nil, nil
		})

	b := &Bench{
		Client:    client,
		Namespace: "bench",
	}
	err := b.Prepare(ctx, nil)
	const want = `service account default of namespace bench: serviceaccounts "default" not found`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
