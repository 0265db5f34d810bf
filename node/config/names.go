package config

import (
	"fmt"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// sysctlPattern is the name of a sysctl, or a prefix of names with a * at its end.
var sysctlPattern = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*([a-z0-9][-_a-z0-9]*)?(\*|[a-z0-9])$`)

func checkTaint(i int, t v1.Taint) error {
	wrong := validation.IsQualifiedName(t.Key)
	if t.Value != "" {
		wrong = append(wrong, validation.IsValidLabelValue(t.Value)...)
	}
	switch t.Effect {
	case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
	default:
		wrong = append(wrong, fmt.Sprintf("%q is no effect of a taint", t.Effect))
	}
	if t.TimeAdded != nil {
		wrong = append(wrong, "timeAdded must not be set")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("registerWithTaints[%d] %q: %s", i, t.Key, strings.Join(wrong, "; "))
	}
	return nil
}

// checkLabels applies kubelet's rules for --node-labels: a label that the API server would refuse keeps the node out.
func checkLabels(labels map[string]string) error {
	for key, value := range labels {
		wrong := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(wrong) > 0 {
			return fmt.Errorf("--node-labels: %s=%s: %s", key, value, strings.Join(wrong, "; "))
		}
		if !mayLabel(key) {
			return fmt.Errorf("--node-labels: a node may not give itself the label %s; those of kubernetes.io and k8s.io "+
				"must be one of %s or below one of %s", key, strings.Join(kubeletapis.KubeletLabels(), ", "),
				strings.Join(kubeletapis.KubeletLabelNamespaces(), ", "))
		}
	}
	return nil
}

// mayLabel tells whether NodeRestriction lets a node give itself a label.
func mayLabel(key string) bool {
	prefix, _, found := strings.Cut(key, "/")
	below := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	return !found || kubeletapis.IsKubeletLabel(key) || !below("kubernetes.io") && !below("k8s.io")
}
