package kubeletconfig

import (
	"fmt"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// sysctlPattern is the name of a sysctl, or a prefix of names with a * at its end.
var sysctlPattern = regexp.MustCompile(
	`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*([a-z0-9][-_a-z0-9]*)?(\*|[a-z0-9])$`)

func checkTaint(i int, t v1.Taint) error {
	wrong := validation.IsQualifiedName(t.Key)
	if t.Value != "" {
		wrong = append(wrong, validation.IsValidLabelValue(t.Value)...)
	}

	switch t.Effect {
	case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
	default:
		wrong = append(wrong, fmt.Sprintf("%q is not an effect of a taint", t.Effect))
	}

	if t.TimeAdded != nil {
		wrong = append(wrong, "timeAdded must not be set")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("registerWithTaints[%d] %q: %s", i, t.Key, strings.Join(wrong, "; "))
	}

	return nil
}
