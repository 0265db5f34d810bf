package image

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/durable"
)

// record is an image on disk: IMAGES/<hex of the ID>.json.
type record struct {
	ID     string
	Config []byte

	// Chain are the chain IDs (OCI image-spec config.md) of the layers as hex, the lowest first.
	Chain []string

	// Tags say when each was last pulled: of two records with one tag, the later has it.
	Tags map[string]time.Time

	// Digests are names with digests, the last pulled one last.
	Digests []string

	// Synced says that the layers are safe on the disk. Until then, the record counts only for the boot that
	// wrote it.
	Synced bool
	Boot   string

	// Pinned is set by an import.
	Pinned bool

	// Artifact says that Config is not the configuration of an image, and that the ID is the digest of the
	// manifest.
	Artifact bool

	parsed *ocispec.Image

	// arrival counts the images that were added: it distinguishes this record from one of the same image that
	// was removed and pulled again.
	arrival int64
}

func (r *record) copy() *record {
	c := *r
	c.Tags = maps.Clone(r.Tags)
	c.Digests = slices.Clone(r.Digests)
	if c.Tags == nil {
		c.Tags = make(map[string]time.Time)
	}
	return &c
}

// parse reads the configuration once: with one of megabytes, each look at the image would cost a tenth of a
// second.
func (r *record) parse() error {
	if r.parsed != nil {
		return nil
	}
	r.parsed = new(ocispec.Image)
	if err := json.Unmarshal(r.Config, r.parsed); err != nil {
		return fmt.Errorf("configuration of image %s: %w", r.ID, err)
	}
	return nil
}

// maxDigests bounds the names that an image gets when a registry says another digest at each pull.
const maxDigests = 64

// addDigest makes name the last of the digests. One from an archive goes before those that the image has from
// the same repository.
func (r *record) addDigest(name string, archived bool) {
	if archived && r.isFrom(name) {
		if !slices.Contains(r.Digests, name) && len(r.Digests) < maxDigests {
			r.Digests = slices.Insert(r.Digests, 0, name)
		}

		return
	}

	r.Digests = slices.DeleteFunc(r.Digests, func(other string) bool { return other == name })
	r.Digests = append(r.Digests, name)
	r.Digests = r.Digests[max(0, len(r.Digests)-maxDigests):]
}

// isFrom reports whether the image has been pulled from the repository of a name with a digest.
func (r *record) isFrom(name string) bool {
	repository, _, _ := strings.Cut(name, "@")
	return slices.ContainsFunc(r.Digests, func(known string) bool {
		return strings.HasPrefix(known, repository+"@")
	})
}

// index finds images by ID, tag and digest. It is not safe for concurrent use: Store.mu guards it.
type index struct {
	records  *durable.Store[record]
	boot     string
	byID     map[string]*record // a record is replaced, never changed
	arrivals int64
}

// load reads the records. Those that cannot be read are set aside; those that unusable gives a reason for are
// deleted.
func (x *index) load(log *slog.Logger, unusable func(*record) string) error {
	all, torn, err := x.records.List()
	if err != nil {
		return err
	}

	for _, t := range torn {
		log.Warn("image record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	// An image that does not count any more is pulled again when it is needed.
	for name, r := range all {
		reason := x.invalid(name, &r)
		if reason == "" {
			reason = unusable(&r)
		}

		if reason == "" {
			x.byID[r.ID] = &r
			continue
		}

		log.Warn("image forgotten", "image", r.ID, "reason", reason)
		if err := x.records.Delete(name); err != nil {
			return err
		}
	}

	x.resolveTags()
	return nil
}

// invalid returns why the record of that name does not count; "" if it does.
func (x *index) invalid(name string, r *record) string {
	if name != hexOf(r.ID) {
		return "the record's name is not its image"
	}
	if !r.Synced && r.Boot != x.boot {
		return "the machine went down before its layers were safe on the disk"
	}
	if err := r.parse(); err != nil {
		return err.Error()
	}
	return ""
}

// resolveTags leaves each tag to the record that got it last: a crash can come between giving it to one
// record and taking it from another.
func (x *index) resolveTags() {
	owner := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(x.byID)) {
		for tag, at := range x.byID[id].Tags {
			if other, ok := owner[tag]; !ok || x.byID[other].Tags[tag].Before(at) {
				owner[tag] = id
			}
		}
	}

	for id, r := range x.byID {
		c := r.copy()
		maps.DeleteFunc(c.Tags, func(tag string, _ time.Time) bool { return owner[tag] != id })
		x.byID[id] = c
	}
}

// find returns the image of an ID, a unique beginning of one of 7 digits or more, a tag or a digest; nil if
// there is none.
func (x *index) find(text string) *record {
	if r := x.findByID(strings.TrimPrefix(text, "sha256:")); r != nil {
		return r
	}

	ref, err := registry.ParseReference(text)
	if err != nil {
		return nil
	}

	name := ref.String()
	for _, r := range x.byID {
		if _, tagged := r.Tags[name]; tagged || slices.Contains(r.Digests, name) {
			return r
		}
	}

	return nil
}

// minPrefix is how many digits of an ID may stand for it.
const minPrefix = 7

func (x *index) findByID(hex string) *record {
	if !isHex(hex) || len(hex) < minPrefix {
		return nil
	}
	if r := x.byID["sha256:"+hex]; r != nil {
		return r
	}

	var found []*record
	for id, r := range x.byID {
		if strings.HasPrefix(hexOf(id), hex) {
			found = append(found, r)
		}
	}

	if len(found) != 1 {
		return nil
	}

	return found[0]
}

func isHex(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, "0123456789abcdef") == ""
}

func hexOf(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		return id
	}
	return hex
}

// ids returns the IDs of all images, sorted.
func (x *index) ids() []string { return slices.Sorted(maps.Keys(x.byID)) }

// add writes the record of an image with its new names and takes its tags from the images that had them. It
// returns the record that is stored; isNew reports whether the image was not there before.
func (x *index) add(r *record, n names) (stored *record, isNew bool, err error) {
	known := x.byID[r.ID]
	if known != nil {
		r = known
	}

	// Readers may have the old record: it is not changed.
	next := r.copy()
	if known == nil {
		x.arrivals++
		next.Boot = x.boot
		next.Synced = false
		next.arrival = x.arrivals
	}

	next.Pinned = next.Pinned || n.pinned
	for _, tag := range n.tags {
		next.Tags[tag] = time.Now()
	}

	for _, name := range n.digests {
		next.addDigest(name, n.archived)
	}

	if err := x.put(next); err != nil {
		return nil, false, err
	}

	// A crash in between leaves a tag with two records; resolveTags then gives it to the later one.
	for _, tag := range n.tags {
		if err := x.untagOthers(next.ID, tag); err != nil {
			return next, known == nil, err
		}
	}

	return next, known == nil, nil
}

func (x *index) put(r *record) error {
	if err := r.parse(); err != nil {
		return err
	}
	if err := x.records.Put(hexOf(r.ID), *r); err != nil {
		return fmt.Errorf("record image %s: %w", r.ID, err)
	}
	x.byID[r.ID] = r
	return nil
}

func (x *index) untagOthers(id, tag string) error {
	for _, other := range slices.Collect(maps.Values(x.byID)) {
		if _, has := other.Tags[tag]; !has || other.ID == id {
			continue
		}
		next := other.copy()
		delete(next.Tags, tag)
		if err := x.put(next); err != nil {
			return err
		}
	}
	return nil
}

// setSynced marks an image as safe on the disk, unless it was removed since added was stored: what has been
// pulled again has a sync of its own.
func (x *index) setSynced(added *record) error {
	r := x.byID[added.ID]
	if r == nil || r.arrival != added.arrival {
		return nil
	}
	next := r.copy()
	next.Synced = true
	return x.put(next)
}

func (x *index) remove(r *record) error {
	if err := x.records.Delete(hexOf(r.ID)); err != nil {
		return fmt.Errorf("remove image %s: %w", r.ID, err)
	}
	delete(x.byID, r.ID)
	return nil
}
