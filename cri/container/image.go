package container

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
)

// findImage looks up the image that a container is to run.
func (c *Containers) findImage(spec *runtimeapi.ImageSpec) (image.Image, error) {
	img, err := c.cfg.Images.Get(spec.GetImage())
	if err == nil && img.Artifact {
		err = fmt.Errorf("image %s is an OCI artifact, to be mounted as a volume, not run", spec.GetImage())
	}
	return img, err
}

// recordImage writes down what the image is called now: its tag may move and it may be removed while the
// container runs.
func (r *Record) recordImage(img image.Image) {
	asked := r.config.GetImage().GetUserSpecifiedImage()
	if asked == "" {
		asked = r.config.GetImage().GetImage()
	}
	r.ImageID, r.ImageRef, r.ImageName = img.ID, img.Reference(asked), asked
	if !strings.HasPrefix(img.ID, "sha256:"+strings.TrimPrefix(asked, "sha256:")) {
		return
	}
	r.ImageName = r.ImageRef // asked for by ID
	if len(img.Tags) > 0 {
		r.ImageName = img.Tags[0]
	}
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
	if spec.Image == "" { // of a record that an older version wrote
		spec.Image = asked.GetImage()
	}
	return spec
}
