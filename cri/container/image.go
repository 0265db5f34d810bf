package container

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
)

// findImage looks up the image that a container is to run, and writes down what it is called now: its tag may
// move and it may be removed while the container runs.
func (c *Containers) findImage(r *Record) (image.Image, error) {
	spec := r.config.GetImage()
	img, err := c.cfg.Images.Get(spec.GetImage())
	if err != nil {
		return img, err
	}
	if img.Artifact {
		return img, fmt.Errorf("image %s is an OCI artifact, to be mounted, not run", spec.GetImage())
	}

	asked := spec.GetUserSpecifiedImage()
	if asked == "" {
		asked = spec.GetImage()
	}

	r.ImageRef, r.ImageName = img.Reference(asked), asked
	if byID := strings.HasPrefix(img.ID, "sha256:"+strings.TrimPrefix(asked, "sha256:")); !byID {
		return img, nil
	}

	r.ImageName = r.ImageRef
	if len(img.Tags) > 0 {
		r.ImageName = img.Tags[0]
	}

	return img, nil
}

// Image is the container's image in its status: named as it was asked for.
func (r Record) Image() *runtimeapi.ImageSpec {
	asked := r.config.GetImage()
	spec := &runtimeapi.ImageSpec{
		Image:              r.ImageName,
		Annotations:        asked.GetAnnotations(),
		UserSpecifiedImage: asked.GetUserSpecifiedImage(),
		RuntimeHandler:     asked.GetRuntimeHandler(),
	}

	// of a record that an older version wrote
	if spec.Image == "" {
		spec.Image = asked.GetImage()
	}

	return spec
}
