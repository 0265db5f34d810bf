package podspec_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

func TestUserIsCommonOnlyIfEveryContainerHasIt(t *testing.T) {
	as := func(user int64) v1.Container {
		return v1.Container{SecurityContext: &v1.SecurityContext{RunAsUser: &user}}
	}
	pod := func(user *int64, containers ...v1.Container) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{
			SecurityContext: &v1.PodSecurityContext{RunAsUser: user},
			InitContainers:  containers[:1],
			Containers:      containers[1:],
		}}
	}

	for _, c := range []struct {
		what string
		pod  *v1.Pod
		want *int64
	}{
		{"the pod's", pod(new(int64(7)), v1.Container{}, v1.Container{}), new(int64(7))},
		{"the containers'", pod(nil, as(7), as(7)), new(int64(7))},
		{"the containers' in place of the pod's", pod(new(int64(1)), as(7), as(7)), new(int64(7))},
		{"two", pod(nil, as(7), as(8)), nil},
		{"one container's and the pod's", pod(new(int64(1)), as(7), v1.Container{}), nil},
		{"one image's", pod(nil, as(7), v1.Container{}), nil},
	} {
		got := podspec.CommonUser(c.pod)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
