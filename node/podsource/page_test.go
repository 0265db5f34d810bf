package podsource

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/node/manifest"
)

func TestStaticPodsFollowAPage(t *testing.T) {
	text, code := "", http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" {
			code = http.StatusUnauthorized
		}

		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	defer server.Close()

	s := source(t)
	p := NewPage(s.Source, server.URL, http.Header{"Authorization": {"Bearer t"}}, time.Hour)
	if s.Settled(manifest.SourceURL) {
		t.Error("settled before the page was read")
	}

	item := "{" + strings.TrimPrefix(etcd, "{apiVersion: v1, kind: Pod, ")
	list := "{apiVersion: v1, kind: PodList, items: [" + item + "]}"
	for _, step := range []struct {
		name, text string
		code       int
		fails      bool
		pods       int
	}{
		{"one pod", etcd, http.StatusOK, false, 1},
		{"not found", "", http.StatusNotFound, true, 1},
		{"no manifest", "<html>", http.StatusOK, true, 1},
		{"too much", strings.Repeat("#", maxManifest+1), http.StatusOK, true, 1},
		{"a list", list, http.StatusOK, false, 1},
		{"empty", "", http.StatusOK, false, 0},
	} {
		text, code = step.text, step.code
		if err := p.read(t.Context()); (err != nil) != step.fails {
			t.Errorf("%s: error %v", step.name, err)
		}
		if got := len(s.List()); got != step.pods {
			t.Errorf("%s: %d pods", step.name, got)
		}
	}

	if !s.Settled(manifest.SourceURL) {
		t.Error("not settled")
	}
}

func TestPodOfAPageIsStatic(t *testing.T) {
	pods, _, err := manifest.Pods([]byte(etcd), manifest.Origin{Node: "node1", URL: "http://192.0.2.1/pods"})
	if err != nil || len(pods) != 1 || SourceOf(pods[0].Annotations) != manifest.SourceURL {
		t.Fatalf("pods %v, %v", pods, err)
	}

	// only those from files tolerate all, as under kubelet
	if len(pods[0].Spec.Tolerations) > 0 {
		t.Errorf("tolerations %v", pods[0].Spec.Tolerations)
	}
}

func TestPasswordOfAPageIsNotLogged(t *testing.T) {
	s := source(t)
	p := NewPage(s.Source, "http://user:word@127.0.0.1:1/pods", nil, time.Hour)
	err := p.read(t.Context())
	if err == nil || strings.Contains(err.Error()+p.place(), "word") {
		t.Errorf("%v, %s", err, p.place())
	}
}
