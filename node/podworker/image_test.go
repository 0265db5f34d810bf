package podworker_test

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
	"github.com/trivet-node/trivet/node/volume"
)

const private = "reg.example.com/team/app:1"

// pullSecret is a secret with a password for reg.example.com.
func pullSecret(namespace, password string) *v1.Secret {
	config := `{"auths":{"reg.example.com":{"username":"u","password":"` + password + `"}}}`
	return &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pull", UID: types.UID(namespace)},
		Type:       v1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{v1.DockerConfigJsonKey: []byte(config)},
	}
}

func podOf(namespace string, policy v1.PullPolicy, image string) *v1.Pod {
	p := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: image, ImagePullPolicy: policy})
	p.Namespace = namespace
	p.UID = types.UID(namespace + "-" + string(policy) + "-" + strings.ReplaceAll(image, "/", "_"))
	p.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "pull"}}
	return p
}

func waitingReason(p *v1.Pod) string {
	if p == nil || len(p.Status.ContainerStatuses) == 0 {
		return ""
	}
	waiting := p.Status.ContainerStatuses[0].State.Waiting
	if waiting == nil {
		return ""
	}
	return waiting.Reason
}

// privateImage has a pod of namespace "owner" pull the image with its secret. restart ends the agent and
// starts another.
func privateImage(t *testing.T) (s *runtimetest.Server, c *cluster, restart func()) {
	s, c = runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	s.Private(private, "right")
	c.secrets = map[string]*v1.Secret{
		"owner/pull": pullSecret("owner", "right"),
		"thief/pull": pullSecret("thief", "wrong"),
		"guest/pull": pullSecret("guest", "right"),
	}

	stop := c.start(s, root)
	first := podOf("owner", v1.PullIfNotPresent, private)
	c.put(first)
	c.waitFor(first.UID, "ready", ready)
	return s, c, func() {
		stop()
		stop = c.start(s, root)
	}
}

func TestImagePulledWithASecretIsNotForEverybody(t *testing.T) {
	t.Parallel()
	_, c, _ := privateImage(t)
	for _, k := range []struct {
		policy v1.PullPolicy
		image  string
		want   string
	}{
		{v1.PullIfNotPresent, private, "ErrImagePull"},
		{v1.PullNever, private, "ErrImageNeverPull"},
		{v1.PullNever, "id-" + private, "ErrImageNeverPull"},
	} {
		pod := podOf("thief", k.policy, k.image)
		c.put(pod)
		c.waitFor(pod.UID, "refused with "+k.want, func(p *v1.Pod) bool { return waitingReason(p) == k.want })
	}
}

func TestImagePulledWithASecretIsForItsHolders(t *testing.T) {
	s, c, restart := privateImage(t)
	pulls := func() int {
		others := func(call string) bool { return call != "PullImage "+private }
		return len(slices.DeleteFunc(s.Calls(), others))
	}

	before := pulls()

	// The guest has another secret of the same content
	for _, namespace := range []string{"guest", "owner"} {
		pod := podOf(namespace, v1.PullNever, private)
		c.put(pod)
		c.waitFor(pod.UID, "ready", ready)
	}

	if got := pulls(); got != before {
		t.Errorf("pulled %d times more", got-before)
	}

	// What is known survives a restart of the agent.
	restart()
	pod := podOf("thief", v1.PullNever, private)
	c.put(pod)
	c.waitFor(pod.UID, "refused", func(p *v1.Pod) bool { return waitingReason(p) == "ErrImageNeverPull" })
}

// A pull without credentials after that would fail with another reason, and hide that the secret is wrong.
func TestRefusedCredentialsAreNotTriedWithoutThem(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	s.Private(private, "right")
	c.secrets = map[string]*v1.Secret{"thief/pull": pullSecret("thief", "wrong")}

	pod := podOf("thief", v1.PullIfNotPresent, private)
	c.put(pod)
	c.waitFor(pod.UID, "refused", func(p *v1.Pod) bool { return waitingReason(p) == "ErrImagePull" })
	if got := s.Users(); slices.Contains(got, "") {
		t.Errorf("pulled as %q, want the secret's user only", got)
	}
}

func TestPreloadedImageIsForEverybody(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	s.Private(private, "right")
	s.Preload(private)
	pod := podOf("thief", v1.PullNever, private)
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
}

func TestNameThatIsNoImageNameIsRefused(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())

	// 64 digits: an ID of an image
	pod := podOf("thief", v1.PullIfNotPresent, strings.Repeat("a1", 32))
	c.put(pod)
	c.waitFor(pod.UID, "refused", func(p *v1.Pod) bool { return waitingReason(p) == "InvalidImageName" })
}

// An image volume is read as easily as an image is run.
func TestImageVolumeIsForHoldersOfTheSecret(t *testing.T) {
	_, c, _ := privateImage(t)
	c.mount([]volume.Mount{{
		Name:          "data",
		ContainerPath: "/data",
		ReadOnly:      true,
		Image:         &v1.ImageVolumeSource{Reference: private, PullPolicy: v1.PullIfNotPresent},
	}}, nil)

	thief := podOf("thief", v1.PullIfNotPresent, "run")
	c.put(thief)
	c.waitFor(thief.UID, "refused", func(p *v1.Pod) bool { return waitingReason(p) == "ErrImagePull" })
	guest := podOf("guest", v1.PullIfNotPresent, "run")
	c.put(guest)
	c.waitFor(guest.UID, "ready", ready)
}
