package image

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/cri/registry"
)

// names are what an image is called when it has been pulled, imported or tagged.
type names struct {
	tags    []string
	digests []string
	pinned  bool

	// archived says that the digests are those of an archive, whose manifest no registry may know.
	archived bool
}

// add adds a name, with its digest if it has one.
func (n *names) add(ref registry.Reference) {
	if ref.Digest != "" {
		n.digests = append(n.digests, ref.String())
		return
	}
	n.tags = append(n.tags, ref.String())
}

// Tag gives an image, which has a name, digest or ID already, further names. A tag of another image is an
// error unless move is set, and a digest is one unless the image came by it: nothing else says what it is the
// digest of.
func (s *Store) Tag(text string, further []string, move bool) error {
	var refs []registry.Reference
	for _, name := range further {
		ref, err := registry.ParseReference(name)
		if err != nil {
			return err
		}

		refs = append(refs, ref)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.images.find(text)
	if r == nil {
		return fmt.Errorf("%s: %w", text, ErrNotFound)
	}

	var n names
	for _, ref := range refs {
		if err := s.images.mayName(r, ref, move); err != nil {
			return fmt.Errorf("tag %s as %s: %w", text, ref, err)
		}

		n.add(ref)
	}

	_, _, err := s.images.add(r, n)
	return err
}

// mayName returns why an image must not get a name; nil if it may.
func (x *index) mayName(r *record, ref registry.Reference, move bool) error {
	if ref.Digest != "" {
		if r.hasDigest(ref.Digest) {
			return nil
		}

		return fmt.Errorf("image %s did not come by that digest", r.ID)
	}

	for _, other := range x.byID {
		if _, taken := other.Tags[ref.String()]; taken && other.ID != r.ID && !move {
			return fmt.Errorf("the name belongs to another image, %s", other.ID)
		}
	}

	return nil
}

// hasDigest reports whether the image came by a digest, from any repository.
func (r *record) hasDigest(d digest.Digest) bool {
	return slices.ContainsFunc(r.Digests, func(known string) bool {
		ref, err := registry.ParseReference(known)
		return err == nil && ref.Digest == d
	})
}

// Untag takes a name from an image. The image goes with its last tag or, if it has none, with its last
// digest; an ID takes all its names at once. It is an error if there is no such image.
func (s *Store) Untag(text string) error {
	s.mu.Lock()
	err := s.images.untag(text)
	s.mu.Unlock()
	if err != nil {
		return err
	}

	return s.Collect()
}

func (x *index) untag(text string) error {
	r := x.find(text)
	if r == nil {
		return fmt.Errorf("%s: %w", text, ErrNotFound)
	}
	if left := r.without(text); left != nil {
		return x.put(left)
	}
	return x.remove(r)
}

// without returns the record of an image without a name; nil if that is the last one, or the image's ID.
func (r *record) without(text string) *record {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return nil
	}

	left := r.copy()
	name := ref.String()
	if _, isTag := r.Tags[name]; isTag {
		delete(left.Tags, name)
		if len(left.Tags) == 0 {
			return nil
		}

		return left
	}

	left.Digests = slices.DeleteFunc(left.Digests, func(known string) bool { return known == name })
	if len(left.Digests) == len(r.Digests) || len(left.Digests)+len(left.Tags) == 0 {
		return nil
	}

	return left
}

// Remove forgets an image with all its names and frees the layers that nothing else needs. Containers that
// hold layers keep them. An image that is not there is success.
func (s *Store) Remove(text string) error {
	s.mu.Lock()
	err := s.images.forget(text)
	s.mu.Unlock()
	if err != nil {
		return err
	}

	return s.Collect()
}

func (x *index) forget(text string) error {
	r := x.find(text)
	if r == nil {
		return nil
	}
	return x.remove(r)
}
