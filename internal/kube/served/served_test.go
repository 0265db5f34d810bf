package served_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/served"
)

// found is how kube-apiserver answers.
const found = `{"kind": "APIGroup", "apiVersion": "v1", "name": "groupsnapshot.storage.k8s.io",
	"versions": [
		{"groupVersion": "groupsnapshot.storage.k8s.io/v1beta2", "version": "v1beta2"},
		{"groupVersion": "groupsnapshot.storage.k8s.io/v1beta1", "version": "v1beta1"}
	],
	"preferredVersion": {"groupVersion": "groupsnapshot.storage.k8s.io/v1beta2", "version": "v1beta2"}}`

func TestVersionsAreThoseThatTheServerNames(t *testing.T) {
	for name, c := range map[string]struct {
		code  int
		text  string
		want  []string
		fails bool
	}{
		"two":           {http.StatusOK, found, []string{"v1beta2", "v1beta1"}, false},
		"not installed": {http.StatusNotFound, "404 page not found\n", nil, false},
		"forbidden":     {http.StatusForbidden, "no", nil, true},
		"damaged":       {http.StatusOK, "{", nil, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/apis/groupsnapshot.storage.k8s.io" {
				t.Errorf("%s: asked for %s", name, r.URL.Path)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.code)
			_, _ = w.Write([]byte(c.text))
		}))
		client, err := kube.New(kube.At(server.URL))
		if err != nil {
			t.Fatal(err)
		}

		got, err := served.Versions(t.Context(), client, "groupsnapshot.storage.k8s.io")
		if !slices.Equal(got, c.want) || (err != nil) != c.fails {
			t.Errorf("%s: versions %q, error %v", name, got, err)
		}
		server.Close()
	}
}
