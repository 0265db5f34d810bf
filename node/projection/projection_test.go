package projection_test

import (
	"context"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/projection"
	"github.com/trivet-node/trivet/node/token"
)

// api has the objects that volumes refer to, by name.
type api struct {
	maps    map[string]*v1.ConfigMap
	secrets map[string]*v1.Secret
	bundles []certificatesv1.ClusterTrustBundle
}

func notFound(resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

func (a *api) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if object := a.maps[name]; object != nil {
		return object, nil
	}
	return nil, notFound("configmaps", name)
}

func (a *api) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if object := a.secrets[name]; object != nil {
		return object, nil
	}
	return nil, notFound("secrets", name)
}

func (a *api) ClusterTrustBundle(
	_ context.Context,
	name string,
) (*certificatesv1.ClusterTrustBundle, error) {
	for i := range a.bundles {
		if a.bundles[i].Name == name {
			return &a.bundles[i], nil
		}
	}
	return nil, notFound("clustertrustbundles", name)
}

func (a *api) ClusterTrustBundles(
	_ context.Context,
	signer string,
	selector labels.Selector,
) ([]certificatesv1.ClusterTrustBundle, error) {
	var matching []certificatesv1.ClusterTrustBundle
	for _, bundle := range a.bundles {
		if bundle.Spec.SignerName == signer && selector.Matches(labels.Set(bundle.Labels)) {
			matching = append(matching, bundle)
		}
	}
	return matching, nil
}

func (a *api) Token(
	_ context.Context,
	namespace, account string,
	spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
		Token:               namespace + "/" + account + " for " + strings.Join(spec.Audiences, ","),
		ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
	}}, nil
}

func pod() *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name:      "p",
		Namespace: "ns",
		UID:       "uid-1",
		Labels:    map[string]string{"a": "1"},
	}}
}

func files(a *api, p *v1.Pod, source v1.VolumeSource) (projection.Files, error) {
	projector := projection.Projector{
		Objects: a,
		Tokens:  token.NewCache(a, slog.New(slog.DiscardHandler)),
		Node:    podenv.Node{Name: "n"},
	}
	return projector.Files(context.Background(), p, &v1.Volume{Name: "v", VolumeSource: source})
}

func projected(sources ...v1.VolumeProjection) v1.VolumeSource {
	return v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: sources}}
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

// text is what the files say, each with its mode.
func text(files projection.Files) map[string]string {
	out := map[string]string{}
	for path, file := range files {
		out[path] = file.Mode.String()[7:] + " " + string(file.Data)
	}
	return out
}

// contents are sources of volumes, with the modes and contents of the files that they show.
var contents = map[string]struct {
	source v1.VolumeSource
	want   map[string]string
}{
	"a configMap shows all keys": {
		v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("m")}},
		map[string]string{"k": "r-- v", "b": "r-- 0"},
	},
	"a secret shows the named keys where they are wanted": {
		v1.VolumeSource{Secret: &v1.SecretVolumeSource{
			SecretName: "s",
			Items:      []v1.KeyToPath{{Key: "k", Path: "deep/key", Mode: new(int32(0o446))}},
		}},
		map[string]string{"deep/key": "rw- hidden"},
	},
	"the downward API shows fields": {
		v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{
			Items:       []v1.DownwardAPIVolumeFile{podLabels},
			DefaultMode: new(int32(0o447)),
		}},
		map[string]string{"labels": `rwx a="1"`},
	},
	"of two sources with the same path the later one wins": {
		projected(
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("m")}},
			v1.VolumeProjection{Secret: &v1.SecretProjection{LocalObjectReference: ref("s")}},
		),
		map[string]string{"k": "r-- hidden", "b": "r-- 0", "l": "r-- "},
	},
	"what is optional may be missing": {
		projected(
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{
				LocalObjectReference: ref("none"),
				Optional:             new(true),
			}},
			v1.VolumeProjection{Secret: &v1.SecretProjection{
				LocalObjectReference: ref("s"),
				Items:                []v1.KeyToPath{{Key: "none", Path: "none"}, {Key: "l", Path: "l"}},
				Optional:             new(true),
			}},
		),
		map[string]string{"l": "r-- "},
	},
	"a token is of the pod's account and for the audience": {
		projected(v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{
			Path:     "token",
			Audience: "vault",
		}}),
		map[string]string{"token": "r-- ns/default for vault"},
	},
}

var podLabels = v1.DownwardAPIVolumeFile{
	Path:     "labels",
	FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"},
}

func TestFilesOfAVolume(t *testing.T) {
	config := &v1.ConfigMap{
		Data:       map[string]string{"k": "v"},
		BinaryData: map[string][]byte{"b": {'0'}},
	}
	a := &api{
		maps:    map[string]*v1.ConfigMap{"m": config},
		secrets: map[string]*v1.Secret{"s": {Data: map[string][]byte{"k": []byte("hidden"), "l": nil}}},
	}

	for name, c := range contents {
		got, err := files(a, pod(), c.source)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}

		if diff := cmp.Diff(c.want, text(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	a := &api{secrets: map[string]*v1.Secret{"s": {}}}
	for want, source := range map[string]v1.VolumeSource{
		`configmap "none" not found`: {
			ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("none")},
		},
		`secret "s": references non-existent secret key: k`: {
			Secret: &v1.SecretVolumeSource{
				SecretName: "s",
				Items:      []v1.KeyToPath{{Key: "k", Path: "k"}},
			},
		},
		"downward API item x: it has no fieldRef and no resourceFieldRef": {
			DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "x"}}},
		},
		"projected source 0 is of a type that this agent does not serve": projected(v1.VolumeProjection{}),
	} {
		_, err := files(a, pod(), source)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestTokenIsReadableByThePodAlone(t *testing.T) {
	source := projected(v1.VolumeProjection{
		ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"},
	})

	p := pod()
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}
	p.Spec.Containers = []v1.Container{{Name: "c"}}
	got, err := files(&api{}, p, source)
	if err != nil || got["token"].Mode != 0o600 || got["token"].UID != 0 {
		t.Errorf("with a group: %v %v, want mode 0600 of root", got["token"], err)
	}

	p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: new(int64(1000))}
	got, err = files(&api{}, p, source)
	if err != nil || got["token"].Mode != 0o600 || got["token"].UID != 1000 {
		t.Errorf("with a user: %v %v, want mode 0600 of user 1000", got["token"], err)
	}
}

// anchor is a certificate with that text in place of its bytes, in PEM.
func anchor(text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
}

// trustSources are selections among the bundles of TestTrustAnchorsAreJoinedAndEachIsThereOnce.
var trustSources = []struct {
	what   string
	source v1.ClusterTrustBundleProjection
	want   string

	// fails is what the error names, empty for none.
	fails string
}{
	{
		what:   "by name",
		source: v1.ClusterTrustBundleProjection{Name: new("one")},
		want:   anchor("a") + anchor("b"),
	},
	{
		what: "by label",
		source: v1.ClusterTrustBundleProjection{
			SignerName:    new("x/s"),
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"alive": "yes"}},
		},
		want: anchor("a") + anchor("b"),
	},
	{
		what: "all",
		source: v1.ClusterTrustBundleProjection{
			SignerName:    new("x/s"),
			LabelSelector: &metav1.LabelSelector{},
		},
		want: anchor("a") + anchor("b") + anchor("c"),
	},
	{
		what:   "no selector",
		source: v1.ClusterTrustBundleProjection{SignerName: new("x/s")},
		fails:  "x/s",
	},
	{
		what:   "no selector, optional",
		source: v1.ClusterTrustBundleProjection{SignerName: new("x/s"), Optional: new(true)},
	},
	{
		what:   "missing",
		source: v1.ClusterTrustBundleProjection{Name: new("five")},
		fails:  "five",
	},
	{
		what:   "missing, optional",
		source: v1.ClusterTrustBundleProjection{Name: new("five"), Optional: new(true)},
	},
}

func TestTrustAnchorsAreJoinedAndEachIsThereOnce(t *testing.T) {
	bundle := func(name, signer, alive, text string) certificatesv1.ClusterTrustBundle {
		return certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"alive": alive}},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text},
		}
	}

	a := &api{bundles: []certificatesv1.ClusterTrustBundle{
		bundle("one", "x/s", "yes", "a comment\n"+anchor("b")+anchor("a")),
		bundle("two", "x/s", "yes", anchor("b")),
		bundle("three", "x/s", "no", anchor("c")),
		bundle("four", "y/s", "yes", anchor("d")),
	}}

	for _, c := range trustSources {
		c.source.Path = "ca.pem"
		got, err := files(a, pod(), projected(v1.VolumeProjection{ClusterTrustBundle: &c.source}))
		switch {
		case c.fails != "" && err == nil:
			t.Errorf("%s: no error, want one that names %s", c.what, c.fails)
		case c.fails != "" && !strings.Contains(err.Error(), c.fails):
			t.Errorf("%s: error %v does not name %s", c.what, err, c.fails)
		case c.fails == "" && (err != nil || string(got["ca.pem"].Data) != c.want):
			t.Errorf("%s: %q %v, want %q", c.what, got["ca.pem"].Data, err, c.want)
		}
	}
}
