package pullauth

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

func TestTheMostSpecificCredentialsComeFirst(t *testing.T) {
	file := []byte(`{"auths": {
		"*.example.com": {"username": "star", "password": "p"},
		"reg.example.com/team": {"auth": "dGVhbTpzZWNyZXQ="},
		"https://index.docker.io/v1/": {"username": "hub", "password": "p"},
		"reg.example.com:5000": {"username": "port", "password": "p"}
	}}`)

	for image, want := range map[string][]string{
		"reg.example.com/team/app:1": {"team", "star"},
		"reg.example.com/other":      {"star"},
		"reg.example.com/teamwork/x": {"star"},
		"a.b.example.com/x":          nil,
		"reg.example.com:5000/x":     {"port"},
		"busybox":                    {"hub"},
		"not an image":               nil,
	} {
		var got []string
		for _, a := range For(image, File{}, File{Data: []byte("{")}, File{Data: file}) {
			got = append(got, a.Username)
		}

		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", image, got, want)
			continue
		}

		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", image, got, want)
			}
		}
	}
}

// The hash is in kubelet's records of pulls: another one would have every image verified again after an
// exchange of the agents.
func TestHashIsKubelets(t *testing.T) {
	file := []byte(`{"auths":{"reg.example.com":{"auth":"dGVhbTpzZWNyZXQ=","email":"a@example.com"}}}`)
	got := For("reg.example.com/app", File{Data: file})
	sum := sha256.Sum256([]byte(`{"username":"team","password":"secret","email":"a@example.com"}`))
	if want := hex.EncodeToString(sum[:]); len(got) != 1 || got[0].Hash != want {
		t.Errorf("%+v, want hash %s", got, want)
	}
}

func TestKeysArePatternsPathsAndURLs(t *testing.T) {
	keys := []string{"reg.example.com", "*.example.com", "reg.example.com/team", "https://reg.example.com"}
	for _, key := range keys {
		file := File{Data: []byte(`{"auths":{"` + key + `":{"auth":"dGVhbTpzZWNyZXQ="}}}`)}
		got := For("reg.example.com/team/app", file)
		if len(got) != 1 || got[0].Username != "team" {
			t.Errorf("key %s: %+v, want team's credentials", key, got)
		}
	}
}

func FuzzFor(f *testing.F) {
	f.Add("reg.example.com/x", []byte(`{"auths":{"reg.example.com":{"auth":"YTpi"}}}`))
	f.Fuzz(func(t *testing.T, image string, file []byte) { For(image, File{Data: file}) })
}
