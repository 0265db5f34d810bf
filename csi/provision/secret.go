package provision

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/trivet-node/trivet/csi/objects"
)

// Parameters of a class that name the Secret with which its volumes are staged, as external-provisioner has
// them; the latter two are for all calls that no other parameters are for.
const (
	stageSecretName      = objects.ParameterPrefix + "node-stage-secret-name"
	stageSecretNamespace = objects.ParameterPrefix + "node-stage-secret-namespace"
	secretName           = objects.ParameterPrefix + "secret-name"
	secretNamespace      = objects.ParameterPrefix + "secret-namespace"
)

// encryption is the parameter of a class whose volumes need a Secret.
const encryption = "encryption"

func isEncrypted(class *storagev1.StorageClass) bool {
	value, set := class.Parameters[encryption]
	return set && value != "none"
}

// stageSecret returns the Secret that a class names for a claim's volume; nil if it names none. The Secret
// need not be there yet, and its content is no business of the provisioner.
func stageSecret(
	c *corev1.PersistentVolumeClaim,
	class *storagev1.StorageClass,
) (*corev1.SecretReference, error) {
	name, namespace := class.Parameters[stageSecretName], class.Parameters[stageSecretNamespace]
	if name == "" && namespace == "" {
		name, namespace = class.Parameters[secretName], class.Parameters[secretNamespace]
	}
	switch {
	case name == "" && namespace == "" && isEncrypted(class):
		return nil, fmt.Errorf("parameter %s: volumes that are encrypted cannot be used without the Secret"+
			" that parameters %s and %s name", encryption, stageSecretName, stageSecretNamespace)
	case name == "" && namespace == "":
		return nil, nil
	case name == "", namespace == "":
		return nil, fmt.Errorf("parameters %s and %s: there is only one of them",
			stageSecretName, stageSecretNamespace)
	}

	// Who writes a claim does not choose the namespace of the Secret, but by that of the claim.
	values := map[string]string{"pv.name": volumeName(c), "pvc.namespace": c.Namespace}
	namespace, err := resolve(namespace, values)
	if err == nil {
		err = asError(validation.IsDNS1123Label(namespace))
	}
	if err != nil {
		return nil, fmt.Errorf("parameter %s: %q: %w", stageSecretNamespace, namespace, err)
	}

	values["pvc.name"] = c.Name
	for key, value := range c.Annotations {
		values["pvc.annotations['"+key+"']"] = value
	}
	name, err = resolve(name, values)
	if err == nil {
		err = asError(validation.IsDNS1123Subdomain(name))
	}
	if err != nil {
		return nil, fmt.Errorf("parameter %s: %q: %w", stageSecretName, name, err)
	}

	return &corev1.SecretReference{Name: name, Namespace: namespace}, nil
}

// resolve puts values in the place of ${KEY}. A value is not looked through again.
func resolve(template string, values map[string]string) (string, error) {
	unknown := map[string]bool{}
	resolved := os.Expand(template, func(key string) string {
		value, ok := values[key]
		if !ok {
			unknown[key] = true
		}
		return value
	})
	if len(unknown) > 0 {
		return template, fmt.Errorf("nothing is known for %q", slices.Sorted(maps.Keys(unknown)))
	}
	return resolved, nil
}

func asError(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems, "; "))
}
