package container

import (
	"fmt"
	"strings"

	"github.com/trivet-node/trivet/cri/image"
)

// findImage returns the image that a container is to run, and notes in its record what it is called now: its
// tag may move and it may be removed while the container runs.
func (c *Service) findImage(r *Record) (image.Image, error) {
	requested := r.config.GetImage()
	img, err := c.cfg.Images.Get(requested.GetImage())
	if err != nil {
		return img, err
	}

	if img.Artifact {
		const format = "image %s is an OCI artifact, to be mounted, not run"
		return img, fmt.Errorf(format, requested.GetImage())
	}

	name := requested.GetUserSpecifiedImage()
	if name == "" {
		name = requested.GetImage()
	}

	r.ImageID = img.ID
	r.ImageRef = img.Reference(name)
	r.ImageName = name

	// An ID is not a name: the image is shown by one that it has.
	if strings.HasPrefix(img.ID, "sha256:"+strings.TrimPrefix(name, "sha256:")) {
		r.ImageName = r.ImageRef
		if len(img.Tags) > 0 {
			r.ImageName = img.Tags[0]
		}
	}

	return img, nil
}
