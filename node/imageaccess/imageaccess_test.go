package imageaccess

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/node/runtime"
)

func open(t *testing.T, root, policy string, allowlist ...string) *Access {
	t.Helper()
	a, err := Open(Config{
		RootDir:   root,
		Policy:    policy,
		Allowlist: allowlist,
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func granted(t *testing.T, a *Access, name string, image *runtime.Image, own ...Secret) bool {
	t.Helper()
	ok, err := a.Granted(name, image, func() ([]Secret, error) { return own, nil })
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func pull(t *testing.T, a *Access, name, id string, with *Secret) {
	t.Helper()
	if err := errors.Join(a.Pulling(name, nil), a.Pulled(name, id, with)); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, root, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "image_manager", dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	image = &runtime.Image{ID: "sha256:1", RepoTags: []string{"docker.io/library/app:1"}}
	owner = Secret{
		UID:       "u",
		Namespace: "ns",
		Name:      "pull",
		Hash:      "h",
	}
)

func TestPoliciesVerifyAsKubelets(t *testing.T) {
	const preloaded, public, secret = 0, 1, 2

	// whether a pod without secrets may use the image
	for policy, want := range map[string][3]bool{
		"":                             {true, true, false},
		"NeverVerify":                  {true, true, true},
		"NeverVerifyPreloadedImages":   {true, true, false},
		"NeverVerifyAllowlistedImages": {false, true, false},
		"AlwaysVerify":                 {false, true, false},
	} {
		for how, want := range want {
			a := open(t, t.TempDir(), policy)
			switch how {
			case public:
				pull(t, a, "app:1", image.ID, nil)
			case secret:
				pull(t, a, "app:1", image.ID, &owner)
			}

			if got := granted(t, a, "app:1", image); got != want {
				t.Errorf("policy %q, image pulled in way %d: granted %v, want %v", policy, how, got, want)
			}

			// another tag of the same
			if how == secret && !granted(t, a, "app:2", image, owner) {
				t.Errorf("policy %q: refused to the secret's holder", policy)
			}
		}
	}
}

func TestAllowlistNamesImagesAndPrefixes(t *testing.T) {
	a := open(t, t.TempDir(), "NeverVerifyAllowlistedImages", "reg.example.com/one", "reg.example.com/many/*")
	for name, want := range map[string]bool{
		"reg.example.com/one:1":       true,
		"reg.example.com/one/more":    false,
		"reg.example.com/many/x@sha1": true,
		"reg.example.com/manyx":       false,
	} {
		if got := granted(t, a, name, image); got != want {
			t.Errorf("%s: granted %v, want %v", name, got, want)
		}
	}

	for _, pattern := range []string{"", "*", "/*", "a*/*", "reg.example.com/app:1", " a"} {
		if _, err := newPolicy("NeverVerifyAllowlistedImages", []string{pattern}); err == nil {
			t.Errorf("pattern %q was accepted", pattern)
		}
	}

	if _, err := Open(Config{RootDir: t.TempDir(), Policy: "Sometimes"}); err == nil {
		t.Error("an unknown policy was accepted")
	}
}

func TestSecretFitsByCoordinatesOrContent(t *testing.T) {
	a := open(t, t.TempDir(), "")
	pull(t, a, "app:1", image.ID, &owner)
	for _, c := range []struct {
		what string
		own  Secret
		want bool
	}{
		{"another object with that content", Secret{"v", "other", "mine", "h"}, true},
		{"the same object with other content", Secret{"u", "ns", "pull", "new"}, true},
		{"another object", Secret{"w", "other", "pull", "x"}, false},
		{"a new secret of the same name", Secret{"x", "ns", "pull", "x"}, false},
	} {
		if got := granted(t, a, "app:1", image, c.own); got != c.want {
			t.Errorf("%s: granted %v, want %v", c.what, got, c.want)
		}
	}

	// What fitted is known from then on.
	if !granted(t, a, "app:1", image, Secret{
		UID:       "y",
		Namespace: "third",
		Name:      "pull",
		Hash:      "new",
	}) {
		t.Error("the secret's new content is not known")
	}
}

// The image is in the runtime before the agent, killed in mid-pull, came to write down with what it was
// pulled.
func TestPullThatWasCutOffLeavesNoPreloadedImage(t *testing.T) {
	root := t.TempDir()
	if err := open(t, root, "").Pulling("app:1", nil); err != nil {
		t.Fatal(err)
	}

	a := open(t, root, "")
	for _, name := range []string{"app:1", "docker.io/library/app:1", "sha256:1"} {
		if granted(t, a, name, image) {
			t.Errorf("by name %s: granted", name)
		}
	}

	now := time.Now()
	if err := a.Reconcile([]*runtime.Image{image}, now); err != nil || len(files(t, root, "pulling")) != 1 {
		t.Errorf("a young intent did not stay: %v", err)
	}

	err := a.Reconcile([]*runtime.Image{image}, now.Add(2*abandonedAfter))
	if err != nil || len(files(t, root, "pulling")) != 0 {
		t.Errorf("an old intent stays: %v", err)
	}
	if granted(t, a, "sha256:1", image) || len(files(t, root, "pulled")) != 1 {
		t.Error("the intent did not become a record")
	}
}

// Everybody who may make pods can begin pulls and have them cut off.
func TestPullThatWasCutOffClosesNoPreloadedImage(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	if err := a.Pulling("app:1", image); err != nil {
		t.Fatal(err)
	}

	during := granted(t, a, "app:1", image)
	a.Failed("app:1", true)
	other := &runtime.Image{ID: "sha256:2", RepoTags: image.RepoTags}
	if !during || !granted(t, a, "app:1", image) || granted(t, a, "app:1", other) {
		t.Error("the image that was there is refused, or one that the pull may have brought is not")
	}

	// What the pull has brought stays closed through another one that is cut off, and when that is
	// reconciled.
	if err := a.Pulling("app:1", other); err != nil {
		t.Fatal(err)
	}

	a.Failed("app:1", true)
	if granted(t, a, "app:1", other) {
		t.Error("the second pull has opened it")
	}

	err := a.Reconcile([]*runtime.Image{other}, time.Now().Add(2*abandonedAfter))
	if err != nil || granted(t, a, "app:1", other) || !granted(t, a, "app:1", image) {
		t.Errorf("reconciled: %v", err)
	}
}

func TestOpenRemovesWhatAKilledWriterLeft(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	torn := filepath.Join(a.pulls.dir, ".tmp-"+fileName("app:1")+"-1")
	if err := os.WriteFile(torn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, root, "")
	if _, err := os.Lstat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A torn file must neither close the preloaded images nor be met again at every start.
func TestIntentThatIsNotReadableIsPassedOver(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	if err := os.WriteFile(a.pulls.path("app:1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !granted(t, a, "app:1", image) {
		t.Error("a preloaded image is refused")
	}

	err := a.Reconcile(nil, time.Now().Add(2*abandonedAfter))
	if err != nil || len(files(t, root, "pulling")) != 0 {
		t.Errorf("it stays: %v", err)
	}
}

func TestFailedPullLeavesNothing(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	if err := a.Pulling("app:1", nil); err != nil {
		t.Fatal(err)
	}
	a.Failed("app:1", false)
	if left := files(t, root, "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRecordsOfImagesThatAreGoneGo(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	pull(t, a, "app:1", image.ID, &owner)
	pull(t, a, "old:1", "sha256:2", &owner)
	err := a.Reconcile([]*runtime.Image{image}, time.Now().Add(-time.Minute))
	if err != nil || len(files(t, root, "pulled")) != 2 {
		t.Errorf("a list older than the record: %v, %v", files(t, root, "pulled"), err)
	}
	if err := a.Reconcile([]*runtime.Image{image}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if left := files(t, root, "pulled"); len(left) != 1 || granted(t, a, "app:1", image) {
		t.Errorf("records %v", left)
	}
}

func TestRecordIsKubelets(t *testing.T) {
	root := t.TempDir()
	const id = "testimageref"
	pull(t, open(t, root, ""), "reg.example.com/app:1@sha256:"+strings.Repeat("0", 64), id, &owner)
	// The name is the SHA-256 of the image's ID, as in kubelet's own test data.
	const name = "sha256-b3c0cc4278800b03a308ceb2611161430df571ca733122f0a40ac8b9792a9064"
	data, err := os.ReadFile(filepath.Join(root, "image_manager", "pulled", name))
	if err != nil {
		t.Fatal(err)
	}

	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}

	delete(got, "lastUpdatedTime")
	want := `map[apiVersion:kubelet.config.k8s.io/v1beta1 ` +
		`credentialMapping:map[reg.example.com/app:map[kubernetesSecrets:[` +
		`map[credentialHash:h name:pull namespace:ns uid:u]]]] imageRef:testimageref kind:ImagePulledRecord]`
	if text := fmt.Sprint(got); text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}

func TestKubeletsRecordsAreRead(t *testing.T) {
	root := t.TempDir()
	a := open(t, root, "")
	for id, record := range map[string]string{
		"sha256:1": `{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1alpha1",` +
			`"lastUpdatedTime":"2024-10-21T12:26:40Z","imageRef":"sha256:1","credentialMapping":{"app":{` +
			`"kubernetesSecrets":[{"uid":"u","namespace":"ns","name":"pull","credentialHash":"h"}],` +
			`"kubernetesServiceAccounts":[{"uid":"s","namespace":"ns","name":"sa"}]}}}`,
		"sha256:2": `{"kind":"ImagePulledRecord"`, // torn
	} {
		if err := os.WriteFile(a.images.path(id), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if granted(t, a, "app:1", image) || !granted(t, a, "app:1", image, owner) {
		t.Error("the record of an older kubelet does not count")
	}
	if granted(t, a, "app:1", &runtime.Image{ID: "sha256:2"}, owner) {
		t.Error("granted by a record that cannot be read")
	}

	pull(t, a, "app:1", "sha256:2", &owner)
	if !granted(t, a, "app:1", &runtime.Image{ID: "sha256:2"}, owner) {
		t.Error("a record that cannot be read is not replaced by the next pull")
	}

	// What only kubelet uses is kept.
	pull(t, a, "app:1", image.ID, &Secret{"v", "ns", "second", "i"})
	r, _, err := a.images.record(image.ID)
	if app := r.Grants["app"]; err != nil || len(app.Secrets) != 2 || len(app.Accounts) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Who may make namespaces and push images must not make records grow without end.
func TestRecordsAreBounded(t *testing.T) {
	a := open(t, t.TempDir(), "")
	for i := range 3 * maxSecrets / 2 {
		pull(t, a, "app:1", image.ID, &Secret{fmt.Sprint(i), "ns", "pull", fmt.Sprint(i)})
		pull(t, a, fmt.Sprintf("app%d:1", i), image.ID, &owner)
	}

	r, _, err := a.images.record(image.ID)
	if err != nil || len(r.Grants) > maxNames {
		t.Fatalf("%d names, %v", len(r.Grants), err)
	}

	for name, g := range r.Grants {
		if len(g.Secrets) > maxSecrets {
			t.Errorf("%s: %d secrets", name, len(g.Secrets))
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1",` +
		`"imageRef":"sha256:1","credentialMapping":{"app":{"nodePodsAccessible":true}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := open(t, t.TempDir(), "")
		if err := os.WriteFile(a.images.path(image.ID), data, 0o600); err != nil {
			t.Fatal(err)
		}

		ok := granted(t, a, "app:1", image)
		r, known, err := a.images.record(image.ID)
		forAll := err == nil && known && r.Grants["app"].Everyone
		if ok && !forAll {
			t.Errorf("granted by %q", data)
		}
	})
}
