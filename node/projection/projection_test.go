package projection_test

import (
	"context"
	"encoding/pem"
	"fmt"
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

	"github.com/trivet-node/trivet/node/podcertificate"
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

// issued has a credential for each source of a volume, which tells the source.
type issued struct{}

func (issued) Volume(
	_ context.Context,
	_ *v1.Pod,
	volume *v1.Volume,
) ([]podcertificate.Credential, error) {
	var out []podcertificate.Credential
	for i := range volume.Projected.Sources {
		out = append(out, podcertificate.Credential{
			Key:   fmt.Appendf(nil, "key %d\n", i),
			Chain: fmt.Appendf(nil, "chain %d\n", i),
		})
	}
	return out, nil
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

		Certificates: issued{},
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
	"certificates are shown in the files that their sources name": {
		projected(
			certificateSource("bundle", "", ""),
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("m")}},
			certificateSource("", "key", "chain"),
			certificateSource("all", "k", ""),
		),
		map[string]string{
			"bundle": "r-- key 0\nchain 0\n",
			"key":    "r-- key 2\n",
			"chain":  "r-- chain 2\n",
			"all":    "r-- key 3\nchain 3\n",
			"k":      "r-- key 3\n",
			"b":      "r-- 0",
		},
	},
}

// certificateSource is a podCertificate source that shows these files.
func certificateSource(bundle, key, chain string) v1.VolumeProjection {
	return v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{
		CredentialBundlePath: bundle,
		KeyPath:              key,
		CertificateChainPath: chain,
	}}
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

func TestTokensAndKeysAreReadableByThePodAlone(t *testing.T) {
	source := projected(
		v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		certificateSource("bundle", "key", "chain"),
	)

	p := pod()
	p.Spec.Containers = []v1.Container{{Name: "c"}}
	for what, c := range map[string]struct {
		context v1.PodSecurityContext
		user    int
	}{
		"with a group": {context: v1.PodSecurityContext{FSGroup: new(int64(1234))}},
		"with a user":  {context: v1.PodSecurityContext{RunAsUser: new(int64(1000))}, user: 1000},
	} {
		p.Spec.SecurityContext = &c.context
		got, err := files(&api{}, p, source)
		if err != nil || len(got) != 4 {
			t.Errorf("%s: %d files, %v", what, len(got), err)
		}
		for path, file := range got {
			if file.Mode != 0o600 || file.UID != c.user {
				t.Errorf("%s: %s has mode %v and user %d, want 0600 of user %d",
					what, path, file.Mode, file.UID, c.user)
			}
		}
	}
}

func TestWithoutASignerPodCertificatesAreRefused(t *testing.T) {
	volume := &v1.Volume{VolumeSource: projected(certificateSource("bundle", "", ""))}
	_, err := (&projection.Projector{}).Files(t.Context(), pod(), volume)
	if err == nil || !strings.Contains(err.Error(), "not available") {
		t.Errorf("%v, want that they are not available", err)
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
