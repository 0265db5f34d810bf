package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/image/tape"
)

// Writer writes an archive that is an OCI layout and has Docker's manifest.json as well.
type Writer struct {
	tar    *tar.Writer
	blobs  map[digest.Digest]bool        // written
	layers map[string]ocispec.Descriptor // by directory
	index  ocispec.Index
	docker []dockerImage
}

// Layer is an unpacked layer.
type Layer struct {
	// Dir has its files, and Tape is the file of its tape, which may not be there.
	Dir, Tape string

	// Diff is the digest of the tar stream that it was unpacked from.
	Diff digest.Digest
}

// NewWriter returns a Writer that writes the archive to a stream.
func NewWriter(to io.Writer) *Writer {
	return &Writer{
		tar:    tar.NewWriter(to),
		blobs:  make(map[digest.Digest]bool),
		layers: make(map[string]ocispec.Descriptor),
		index: ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex,
		},
	}
}

// Add writes an image: its configuration, and its layers, the lowest first. Layers are not compressed, so the
// digest of the manifest is not that of a registry. The image's ID stays, unless the stream of a layer cannot
// be made again: then the layer is packed as it is, and the configuration names it by its new digest.
func (w *Writer) Add(ctx context.Context, names []string, config []byte, layers []Layer) error {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
	}

	for _, l := range layers {
		d, err := w.layer(ctx, l)
		if err != nil {
			return err
		}

		m.Layers = append(m.Layers, d)
	}

	config, err := withLayers(config, layers, m.Layers)
	if err != nil {
		return err
	}
	if m.Config, err = w.blob(config, ocispec.MediaTypeImageConfig); err != nil {
		return err
	}

	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}

	d, err := w.blob(manifest, ocispec.MediaTypeImageManifest)
	if err != nil {
		return err
	}

	// Docker reads manifest.json, others the index, in which each name is an entry.
	image := dockerImage{Config: blobName(m.Config.Digest), RepoTags: names}
	for _, l := range m.Layers {
		image.Layers = append(image.Layers, blobName(l.Digest))
	}

	w.docker = append(w.docker, image)
	if d.Platform, err = platformOf(config); err != nil {
		return err
	}
	if len(names) == 0 {
		w.index.Manifests = append(w.index.Manifests, d)
	}

	for _, name := range names {
		d.Annotations = annotations(name)
		w.index.Manifests = append(w.index.Manifests, d)
	}

	return nil
}

// platformOf returns what a configuration says that its image is for; nil if it says nothing.
func platformOf(config []byte) (*ocispec.Platform, error) {
	var image ocispec.Image
	if err := json.Unmarshal(config, &image); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	if image.OS == "" || image.Architecture == "" {
		return nil, nil
	}
	return &image.Platform, nil
}

// annotations are those of a name in an index: containerd and docker read the whole name, others the tag.
func annotations(name string) map[string]string {
	all := map[string]string{containerdName: name}
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		all[ocispec.AnnotationRefName] = name[at+1:]
	}
	return all
}

// withLayers has a configuration name the layers that are in the archive. If they are what it names already,
// not a byte of it changes.
func withLayers(config []byte, layers []Layer, written []ocispec.Descriptor) ([]byte, error) {
	same := true
	var diffs []digest.Digest
	for i, d := range written {
		diffs = append(diffs, d.Digest)
		same = same && d.Digest == layers[i].Diff
	}
	if same {
		return config, nil
	}

	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}

	// The configuration is "null".
	if fields == nil {
		fields = make(map[string]json.RawMessage)
	}

	rootfs, err := json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: diffs})
	if err != nil {
		return nil, err
	}

	fields["rootfs"] = rootfs
	return json.Marshal(fields)
}

func blobName(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// layer writes the stream of a layer. It is made twice: an archive wants the size and the digest before the
// content.
func (w *Writer) layer(ctx context.Context, l Layer) (ocispec.Descriptor, error) {
	if d, known := w.layers[l.Dir]; known {
		return d, nil
	}

	write, f, err := streamOf(ctx, l)
	if err != nil {
		return ocispec.Descriptor{}, err
	}

	d := describe(f, ocispec.MediaTypeImageLayer)
	w.layers[l.Dir] = d
	if w.blobs[d.Digest] {
		return d, nil
	}

	w.blobs[d.Digest] = true
	if err := w.header(blobName(d.Digest), d.Size); err != nil {
		return d, err
	}

	return d, write(w.tar)
}

// streamOf returns what writes a layer, with the size and digest of what it writes: the stream that the layer
// was unpacked from or, if that cannot be made again, one from which the same files come.
func streamOf(ctx context.Context, l Layer) (write func(io.Writer) error, f file, err error) {
	again := func(to io.Writer) error { return tape.Play(ctx, l.Tape, l.Dir, to) }
	f, err = measure(again)
	if err == nil && f.digest == l.Diff {
		return again, f, nil
	}

	write = func(to io.Writer) error { return pack(ctx, l.Dir, to) }
	f, err = measure(write)
	return write, f, err
}

// measure returns the size and digest of what write writes.
func measure(write func(io.Writer) error) (f file, err error) {
	sum := digest.Canonical.Digester()
	size := &counter{to: sum.Hash()}
	err = write(size)
	f.digest = sum.Digest()
	f.size = size.n
	return f, err
}

// counter counts the bytes that are written to it.
type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}

func (w *Writer) blob(content []byte, mediaType string) (ocispec.Descriptor, error) {
	d := describe(file{digest: digest.FromBytes(content), size: int64(len(content))}, mediaType)
	if w.blobs[d.Digest] {
		return d, nil
	}
	w.blobs[d.Digest] = true
	return d, w.write(blobName(d.Digest), content)
}

func (w *Writer) header(name string, size int64) error {
	return w.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     0o644,
	})
}

func (w *Writer) write(name string, content []byte) error {
	if err := w.header(name, int64(len(content))); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}

// Close writes the lists of images, which end the archive.
func (w *Writer) Close() error {
	for _, f := range []struct {
		name    string
		content any
	}{
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{ocispec.ImageIndexFile, w.index},
		{"manifest.json", w.docker},
	} {
		data, err := json.Marshal(f.content)
		if err != nil {
			return err
		}
		if err := w.write(f.name, data); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}

	return w.tar.Close()
}
