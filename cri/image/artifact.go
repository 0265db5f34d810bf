package image

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations of an artifact's blobs: the file's name, by the image-spec and by the model-spec of CNCF, and
// oras' mark of a packed directory.
const (
	titleAnnotation  = ocispec.AnnotationTitle
	modelAnnotation  = "org.cnai.model.filepath"
	unpackAnnotation = "io.deis.oras.content.unpack"
)

// isArtifact reports whether the manifest is of an OCI artifact, which does not have the configuration of an
// image (image-spec manifest.md, "Guidelines for Artifact Usage"). It holds files to be mounted.
func (m manifest) isArtifact() bool {
	switch m.Config.MediaType {
	case "",
		ocispec.MediaTypeImageConfig,
		"application/vnd.docker.container.image.v1+json":
		return false
	case "application/json", "application/octet-stream":
		// Older tools write these for images.
		return false
	}
	return true
}

// fileName returns the name of an artifact's file; "" if the blob is an archive of files, as the layers of
// images are. oras gives files the media type of an archive, so a name counts more.
func fileName(d ocispec.Descriptor) string {
	title := d.Annotations[titleAnnotation]
	if title == "" {
		title = d.Annotations[modelAnnotation]
	}

	switch {
	case d.Annotations[unpackAnnotation] == "true":
		return ""
	case title != "":
		return title
	case isArchive(d.MediaType):
		return ""
	}

	return d.Digest.Encoded()
}

func isArchive(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		"application/vnd.docker.image.rootfs.diff.tar.gzip":
		return true
	}
	return false
}

// artifactChain returns names for the layers of an artifact. They depend on the blobs, since nothing else
// describes the content.
func artifactChain(m manifest) []string {
	var ids []digest.Digest
	for _, d := range m.Layers {
		made := fmt.Sprintf("blob %s of an artifact as %q", d.Digest, fileName(d))
		ids = append(ids, digest.FromString(made))
	}
	return chainOf(ids)
}
