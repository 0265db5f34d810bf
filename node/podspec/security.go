package podspec

import (
	"cmp"

	v1 "k8s.io/api/core/v1"
)

// FSGroup returns the group that the pod's volumes are given to, nil if the pod names none.
func FSGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// FSGroupOnRootMismatch reports whether a volume whose root directory has the right group already is taken to
// be right as a whole (fsGroupChangePolicy).
func FSGroupOnRootMismatch(pod *v1.Pod) bool {
	security := pod.Spec.SecurityContext
	return security != nil && security.FSGroupChangePolicy != nil &&
		*security.FSGroupChangePolicy == v1.FSGroupChangeOnRootMismatch
}

// ServiceAccount returns the name of the service account that the pod runs as.
func ServiceAccount(pod *v1.Pod) string {
	return cmp.Or(pod.Spec.ServiceAccountName, "default")
}

// CommonUser returns the user that all containers of the pod run as, nil if they differ or if the image of
// one of them decides.
func CommonUser(pod *v1.Pod) *int64 {
	var common *int64
	for c := range All(pod) {
		user := userOf(pod, c)
		if user == nil || common != nil && *user != *common {
			return nil
		}
		common = user
	}
	return common
}

func userOf(pod *v1.Pod, c *v1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.RunAsUser
	}
	return nil
}
