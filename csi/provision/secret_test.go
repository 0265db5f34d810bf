package provision

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSecretOfAClassIsNamedAsExternalProvisionerDoes(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Name:        "data",
		Namespace:   "shop",
		UID:         "1",
		Annotations: map[string]string{"team.example/key": "blue", "evil": "${pvc.namespace}"},
	}}
	for name, c := range map[string]struct {
		name, namespace string
		want            string // NAMESPACE/NAME
		refused         string // part of the error
	}{
		"none":               {"", "", "", ""},
		"plain":              {"key", "vault", "vault/key", ""},
		"of the claim":       {"${pvc.name}", "${pvc.namespace}", "shop/data", ""},
		"of the volume":      {"${pv.name}", "vault", "vault/pvc-1", ""},
		"of both":            {"${pvc.namespace}.${pvc.name}", "vault", "vault/shop.data", ""},
		"an annotation":      {"${pvc.annotations['team.example/key']}", "vault", "vault/blue", ""},
		"name alone":         {"key", "", "", "only one"},
		"namespace alone":    {"", "vault", "", "only one"},
		"unknown":            {"${pvc.uid}", "vault", "", `"pvc.uid"`},
		"no such annotation": {"${pvc.annotations['other']}", "vault", "", "other"},

		// The author of the claim would choose among all Secrets.
		"the claim's name as a namespace": {"key", "${pvc.name}", "", `"pvc.name"`},
		"an annotation as a namespace":    {"key", "${pvc.annotations['evil']}", "", "annotations"},
		"a value that is a template":      {"${pvc.annotations['evil']}", "vault", "", "subdomain"},
		"a path":                          {"../key", "vault", "", "subdomain"},
	} {
		class := &storagev1.StorageClass{Parameters: map[string]string{}}
		if c.name != "" {
			class.Parameters["csi.storage.k8s.io/node-stage-secret-name"] = c.name
		}
		if c.namespace != "" {
			class.Parameters["csi.storage.k8s.io/node-stage-secret-namespace"] = c.namespace
		}

		got := ""
		ref, err := stageSecret(claim, class)
		if ref != nil {
			got = ref.Namespace + "/" + ref.Name
		}
		if got != c.want || (err != nil) != (c.refused != "") ||
			err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestSecretForAllCallsIsForStaging(t *testing.T) {
	class := &storagev1.StorageClass{Parameters: map[string]string{
		"csi.storage.k8s.io/secret-name":      "key",
		"csi.storage.k8s.io/secret-namespace": "vault",
	}}
	ref, err := stageSecret(&corev1.PersistentVolumeClaim{}, class)
	if err != nil || ref == nil || ref.Name != "key" || ref.Namespace != "vault" {
		t.Errorf("%v, %v", ref, err)
	}
}

// A volume without it could be made, and never staged.
func TestEncryptedVolumesNeedASecret(t *testing.T) {
	key := map[string]string{
		"csi.storage.k8s.io/node-stage-secret-name":      "key",
		"csi.storage.k8s.io/node-stage-secret-namespace": "vault",
	}
	for _, c := range []struct {
		encryption string
		secret     map[string]string
		ok         bool
	}{
		{"fscrypt", nil, false},
		{"fscrypt", key, true},
		{"none", nil, true},
		{"none", key, true},
	} {
		class := &storagev1.StorageClass{Parameters: map[string]string{"encryption": c.encryption}}
		maps.Copy(class.Parameters, c.secret)
		_, err := stageSecret(&corev1.PersistentVolumeClaim{}, class)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "node-stage-secret-name") {
			t.Errorf("encryption %s, Secret %t: %v", c.encryption, c.secret != nil, err)
		}
	}
}
