package criconfig

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/runtime"
)

// Mount is one mount of a container: of a path of the host or, if ImageID is set, of an image.
type Mount struct {
	ContainerPath     string
	HostPath          string
	ReadOnly          bool
	RecursiveReadOnly bool
	Propagation       v1.MountPropagationMode // empty: none

	ImageID      string // as the runtime knows it
	Image        string // as the pod's author wrote it
	ImageSubPath string
}

func mounts(in []Mount) []*cri.Mount {
	var out []*cri.Mount
	for _, m := range in {
		one := &cri.Mount{
			ContainerPath:     m.ContainerPath,
			HostPath:          m.HostPath,
			Readonly:          m.ReadOnly,
			RecursiveReadOnly: m.RecursiveReadOnly,
		}

		switch m.Propagation {
		case v1.MountPropagationHostToContainer:
			one.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case v1.MountPropagationBidirectional:
			one.Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}

		if m.ImageID != "" {
			one.Image = &cri.ImageSpec{Image: m.ImageID, UserSpecifiedImage: m.Image}
			one.ImageSubPath = m.ImageSubPath
		}

		out = append(out, one)
	}

	return out
}

// Device is a device of the host that a container may use.
type Device struct {
	ContainerPath string
	HostPath      string
	ReadOnly      bool
}

func devices(in []Device) []*cri.Device {
	var out []*cri.Device
	for _, d := range in {
		permissions := "mrw"
		if d.ReadOnly {
			permissions = "r"
		}

		out = append(out, &cri.Device{
			ContainerPath: d.ContainerPath,
			HostPath:      d.HostPath,
			Permissions:   permissions,
		})
	}

	return out
}

func variables(in []podenv.Variable) []*cri.KeyValue {
	var out []*cri.KeyValue
	for _, v := range in {
		out = append(out, &cri.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return out
}

// CheckText refuses a container whose command or environment has a NUL byte: execve(2) would cut the text
// there. Some runtimes do not look, and the process would get another value than the pod says.
func CheckText(config *runtime.ContainerConfig) error {
	for _, kv := range config.Envs {
		if bytes.IndexByte(kv.Value, 0) >= 0 {
			return fmt.Errorf("environment variable %q has a NUL byte", kv.Key)
		}
	}
	for i, arg := range slices.Concat(config.Command, config.Args) {
		if strings.IndexByte(arg, 0) >= 0 {
			return fmt.Errorf("argument %d of the command has a NUL byte", i)
		}
	}
	return nil
}
