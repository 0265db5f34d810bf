package csivolume

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/volume"
)

func TestAccessModesInCSIsWords(t *testing.T) {
	const (
		writer       = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
		singleWriter = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
		multiWriter  = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
		readers      = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
		writers      = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	)

	for _, c := range []struct {
		modes []v1.PersistentVolumeAccessMode
		older csi.VolumeCapability_AccessMode_Mode
		exact csi.VolumeCapability_AccessMode_Mode
	}{
		{nil, writer, multiWriter},
		{[]v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, writer, multiWriter},
		{[]v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}, writer, singleWriter},
		{[]v1.PersistentVolumeAccessMode{v1.ReadOnlyMany}, readers, readers},
		{[]v1.PersistentVolumeAccessMode{v1.ReadWriteMany, v1.ReadWriteOnce}, writers, writers},
	} {
		if got := accessMode(c.modes, false); got != c.older {
			t.Errorf("%v of an older driver: %v, want %v", c.modes, got, c.older)
		}
		if got := accessMode(c.modes, true); got != c.exact {
			t.Errorf("%v: %v, want %v", c.modes, got, c.exact)
		}
	}
}

func TestPolicyDecidesWhetherTheGroupGetsAVolume(t *testing.T) {
	volume := func(fsType string, modes ...v1.PersistentVolumeAccessMode) *v1.PersistentVolume {
		pv := &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{AccessModes: modes}}
		pv.Spec.CSI = &v1.CSIPersistentVolumeSource{FSType: fsType}
		return pv
	}

	const byType = storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	for _, c := range []struct {
		name   string
		policy storagev1.FSGroupPolicy
		pv     *v1.PersistentVolume
		want   bool
	}{
		{"None", storagev1.NoneFSGroupPolicy, volume("ext4", v1.ReadWriteOnce), false},
		{"File", storagev1.FileFSGroupPolicy, volume("", v1.ReadWriteMany), true},
		{"File, inline", storagev1.FileFSGroupPolicy, nil, true},
		{"one node, with a file system", byType, volume("ext4", v1.ReadWriteOnce), true},
		{"one pod, with a file system", byType, volume("ext4", v1.ReadWriteOncePod), true},
		{"many nodes", byType, volume("ext4", v1.ReadWriteMany), false},
		{"no file system", byType, volume("", v1.ReadWriteOnce), false},
		{"inline", byType, nil, false},
	} {
		if got := mayHaveGroup(c.policy, c.pv); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// issuer issues the audience as token.
type issuer struct{}

func (issuer) Token(
	_ context.Context,
	_, _ string,
	spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{Spec: spec}
	out.Status.Token = "for " + spec.Audiences[0]
	return out, nil
}

// inlineCall is the Setup of an inline volume with one attribute.
func inlineCall(policy storagev1.CSIDriverSpec) *call {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}}
	pod.Spec.ServiceAccountName = "account"
	return &call{
		Request: volume.Request{
			Pod:    pod,
			Inline: &v1.CSIVolumeSource{VolumeAttributes: map[string]string{"a": "1"}},
		},
		driver: &csiplugin.Driver{Name: "d"},
		policy: policy,
	}
}

func TestADriverLearnsOfThePodIfItWants(t *testing.T) {
	m := &Mounter{}
	got, _, err := m.attributes(t.Context(), inlineCall(storagev1.CSIDriverSpec{}), nil)
	if diff := cmp.Diff(map[string]string{"a": "1"}, got); diff != "" || err != nil {
		t.Errorf("without podInfoOnMount: %s %v", diff, err)
	}

	want := map[string]string{
		"a":                                      "1",
		"csi.storage.k8s.io/pod.name":            "p",
		"csi.storage.k8s.io/pod.namespace":       "ns",
		"csi.storage.k8s.io/pod.uid":             "u",
		"csi.storage.k8s.io/serviceAccount.name": "account",
		"csi.storage.k8s.io/ephemeral":           "true",
	}
	policy := storagev1.CSIDriverSpec{PodInfoOnMount: new(true)}
	got, _, err = m.attributes(t.Context(), inlineCall(policy), nil)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("with podInfoOnMount: %s %v", diff, err)
	}
}

func TestTokensAreAmongTheSecretsIfTheDriverWants(t *testing.T) {
	m := &Mounter{cfg: Config{Tokens: issuer{}}}
	policy := storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "vault"}}}
	own := map[string]string{"key": "hidden"}

	attributes, secrets, err := m.attributes(t.Context(), inlineCall(policy), own)
	if err != nil || len(secrets) != 1 || tokenFor(t, attributes, "vault") != "for vault" {
		t.Errorf("attributes %v, secrets %v, error %v", attributes, secrets, err)
	}

	policy.ServiceAccountTokenInSecrets = new(true)
	attributes, secrets, err = m.attributes(t.Context(), inlineCall(policy), own)
	if err != nil || attributes[tokensKey] != "" || tokenFor(t, secrets, "vault") != "for vault" {
		t.Errorf("attributes %v, secrets %v, error %v", attributes, secrets, err)
	}
	if len(own) != 1 {
		t.Errorf("the secrets of the API were changed: %v", own)
	}
}

// tokenFor finds a token as a driver does.
func tokenFor(t *testing.T, in map[string]string, audience string) string {
	t.Helper()
	var tokens map[string]struct{ Token string }
	if err := json.Unmarshal([]byte(in[tokensKey]), &tokens); err != nil {
		t.Fatal(err)
	}
	return tokens[audience].Token
}
