package faultproxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func configMap(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version},
	}
}

// watched sends a watch through a proxy: events of the versions 1 to 6, and then the end.
func watched(t *testing.T, c codec, query string, f Faults) (got []string, proxy *Proxy) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if c.protobuf {
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
		}
		for i := range 6 {
			frame, err := c.encode(watch.Added, configMap("m", fmt.Sprint(i+1)))
			if err != nil || c.write(w, frame) != nil {
				t.Error(err)
			}
		}
		if r.URL.Query().Get("sendInitialEvents") != "" {
			end := configMap("", "7")
			end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
			frame, err := c.encode(watch.Bookmark, end)
			if err != nil || c.write(w, frame) != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(upstream.Close)

	proxy, _ = Start(t, upstream.URL, 1)
	proxy.Set(f)
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)

	response, err := http.Get(front.URL + "/api/v1/configmaps?watch=true&" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()

	next := c.reader(response.Body)
	for {
		frame, err := next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				got = append(got, "cut")
			}
			return got, proxy
		}

		e, err := c.decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, word(e))
	}
}

// word is an event in short.
func word(e event) string {
	switch {
	case e.kind == watch.Error:
		return "error"
	case e.last:
		return "end"
	case e.kind == watch.Bookmark:
		return "b" + e.version
	}
	return e.version
}

func TestEventsGoWrongInBothEncodings(t *testing.T) {
	for name, test := range map[string]struct {
		query  string
		faults Faults
		want   string
	}{
		"nothing":        {"", Faults{}, "1 2 3 4 5 6"},
		"lose":           {"", Faults{Lose: 1}, ""},
		"double":         {"", Faults{Double: 1}, "1 1 2 2 3 3 4 4 5 5 6 6"},
		"cut":            {"", Faults{Cut: 1}, "cut"},
		"error":          {"", Faults{Error: 1}, "error"},
		"delay":          {"", Faults{Delay: 1, Pause: time.Millisecond}, "1 2 3 4 5 6"},
		"early bookmark": {"", Faults{EarlyBookmark: 1}, "b1 1 b2 2 b3 3 b4 4 b5 5 b6 6"},
		"early end":      {"sendInitialEvents=true", Faults{EarlyBookmark: 1}, "end 1 2 3 4 5 6"},
		"initial":        {"sendInitialEvents=true", Faults{}, "1 2 3 4 5 6 end"},
	} {

		for _, c := range []codec{{}, {protobuf: true}} {
			t.Run(fmt.Sprint(name, " protobuf=", c.protobuf), func(t *testing.T) {
				got, proxy := watched(t, c, test.query, test.faults)
				if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if name != "nothing" && name != "initial" && proxy.Tally().Of(name) == 0 {
					t.Errorf("it is not counted: %s", proxy.Tally())
				}
			})
		}
	}
}

func TestReorderedEventsAllCome(t *testing.T) {
	got, proxy := watched(t, codec{}, "", Faults{Reorder: 0.4})
	if proxy.Tally().Of("reorder") == 0 || slices.IsSorted(got) {
		t.Errorf("in order: %v", got)
	}
	slices.Sort(got)
	if want := []string{"1", "2", "3", "4", "5", "6"}; !slices.Equal(got, want) {
		t.Errorf("events %v", got)
	}
}

func TestTheSameSeedDoesTheSame(t *testing.T) {
	faults := Faults{Lose: 0.3, Double: 0.3, Reorder: 0.3}
	first, _ := watched(t, codec{}, "", faults)
	second, _ := watched(t, codec{}, "", faults)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
}

func TestRequestsGoWrong(t *testing.T) {
	server := kubetest.Start(t)
	proxy, cfg := Start(t, server.URL(), 1)
	client, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	maps := kube.ConfigMaps(client)
	made := configMap("a", "")
	proxy.Set(Faults{LoseAnswer: 1})
	if _, err := maps.Create(t.Context(), made); err == nil {
		t.Error("there is an answer")
	}
	if kubetest.Get[corev1.ConfigMap](server, "configmaps", "ns", "a") == nil {
		t.Error("the server has not done it")
	}

	proxy.Set(Faults{Internal: 1})
	if _, err := maps.Get(t.Context(), "ns", "a"); err == nil {
		t.Error("no error")
	}
	proxy.Set(Faults{Hang: 1})
	if _, err := maps.Get(t.Context(), "ns", "a"); err == nil {
		t.Error("an answer that never came")
	}

	proxy.Set(Faults{Slow: 1, Pause: time.Millisecond})
	list := func() int {
		all, _, err := maps.List(t.Context(), "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := list(); n != 1 {
		t.Errorf("%d objects", n)
	}

	server.Put(configMap("b", ""))
	proxy.Set(Faults{OldList: 1})
	if n := list(); n != 1 {
		t.Errorf("%d objects in an old list", n)
	}
	proxy.Set(Faults{})
	if n := list(); n != 2 {
		t.Errorf("%d objects", n)
	}
}
