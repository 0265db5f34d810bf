package criconfig

import (
	"encoding/json"
	"fmt"
	"strconv"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

// Container is what a container's configuration is made of beside the pod and the node.
type Container struct {
	Spec      *v1.Container
	Attempt   uint32
	ImageRef  string // as the runtime knows it
	ImageUser User
	Command   []string // expanded
	Args      []string // expanded
	Env       []podenv.Variable
	Mounts    []Mount
	Devices   []Device
	Groups    []int64 // of volumes
	Users     Users
	// Target is the ID of the container whose process namespace an ephemeral container shares.
	Target string
}

// CreateContainer returns the configuration of one instance of a container.
func CreateContainer(node Node, pod *v1.Pod, in Container) (*runtime.ContainerConfig, error) {
	c := in.Spec
	security, err := containerSecurity(node, pod, in)
	if err != nil {
		return nil, err
	}

	// An ephemeral container may see the processes of another one.
	if in.Target != "" {
		security.NamespaceOptions.Pid = cri.NamespaceMode_TARGET
		security.NamespaceOptions.TargetId = in.Target
	}

	annotations, err := containerAnnotations(pod, c, in.Attempt)
	if err != nil {
		return nil, err
	}

	out := &cri.ContainerConfig{
		Metadata:   &cri.ContainerMetadata{Name: c.Name, Attempt: in.Attempt},
		Image:      &cri.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:    in.Command,
		Args:       in.Args,
		WorkingDir: c.WorkingDir,
		Envs:       variables(in.Env),
		Mounts:     mounts(in.Mounts),
		Devices:    devices(in.Devices),
		Labels: map[string]string{
			runtime.LabelPodName:       pod.Name,
			runtime.LabelPodNamespace:  pod.Namespace,
			runtime.LabelPodUID:        string(pod.UID),
			runtime.LabelContainerName: c.Name,
		},
		Annotations: annotations,
		LogPath:     podlog.File(c.Name, in.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux: &cri.LinuxContainerConfig{
			Resources:       Resources(node, pod, c),
			SecurityContext: security,
		},
	}
	if out.StopSignal, err = stopSignal(c); err != nil {
		return nil, err
	}

	in.Users.giveContainer(out)
	return out, nil
}

// stopSignal returns the signal that the container wants, or the default one, which is the image's.
func stopSignal(c *v1.Container) (cri.Signal, error) {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return cri.Signal_SIGNAL_RUNTIME_DEFAULT, nil
	}
	signal, ok := cri.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)]
	if !ok {
		return 0, fmt.Errorf("container %s: stop signal %q is not known", c.Name, *c.Lifecycle.StopSignal)
	}
	return cri.Signal(signal), nil
}

// containerAnnotations are what a later life of the agent, or kubelet, must know of an instance and cannot
// find in the API when the pod has gone from there.
func containerAnnotations(pod *v1.Pod, c *v1.Container, attempt uint32) (map[string]string, error) {
	path := c.TerminationMessagePath
	if path == "" {
		path = v1.TerminationMessagePathDefault
	}

	out := map[string]string{
		runtime.AnnotationHash:          plan.Hash(c),
		runtime.AnnotationRestartCount:  strconv.FormatUint(uint64(attempt), 10),
		runtime.AnnotationMessagePath:   path,
		runtime.AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
		runtime.AnnotationResources:     podspec.AmountsOf(pod, c).String(),
	}

	if s := pod.DeletionGracePeriodSeconds; s != nil {
		out[runtime.AnnotationDeletionGrace] = strconv.FormatInt(*s, 10)
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		out[runtime.AnnotationTermGrace] = strconv.FormatInt(*s, 10)
	}

	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		data, err := json.Marshal(c.Lifecycle.PreStop)
		if err != nil {
			return nil, fmt.Errorf("container %s: encode preStop: %w", c.Name, err)
		}

		out[runtime.AnnotationPreStop] = string(data)
	}

	if len(c.Ports) > 0 {
		data, err := json.Marshal(c.Ports)
		if err != nil {
			return nil, fmt.Errorf("container %s: encode ports: %w", c.Name, err)
		}

		out[runtime.AnnotationPorts] = string(data)
	}

	return out, nil
}
