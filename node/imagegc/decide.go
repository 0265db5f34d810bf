package imagegc

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Policy says when images are removed. The names are those of KubeletConfiguration.
type Policy struct {
	HighPercent int // imageGCHighThresholdPercent of the file system; 100: never for space
	LowPercent  int // imageGCLowThresholdPercent

	MinAge time.Duration // imageMinimumGCAge: younger images are not removed for space
	MaxAge time.Duration // imageMaximumGCAge: images that were not used for longer are removed; 0: no limit
}

// image is an image as the decision sees it.
type image struct {
	id     string
	size   int64 // bytes
	pinned bool
	inUse  bool

	// seen is when the image was first seen on the node, used when a pod last used it: zero if none has.
	seen time.Time
	used time.Time
}

// idle returns since when nobody has used the image.
func (i image) idle() time.Time {
	if i.used.After(i.seen) {
		return i.used
	}
	return i.seen
}

// removable reports whether nothing speaks against the removal of an image but its age.
func (i image) removable() bool { return !i.pinned && !i.inUse }

// disk is the file system of the images.
type disk struct{ size, free int64 }

// usedPercent is how much of the file system is in use, as kubelet rounds it.
func (d disk) usedPercent() int { return 100 - int(min(d.free, d.size)*100/d.size) }

// aged returns the images that were not used for longer than the maximum age, the least recently used first.
func (p Policy) aged(images []image, now time.Time) []image {
	if p.MaxAge == 0 {
		return nil
	}
	var out []image
	for _, i := range inOrder(images) {
		if now.Sub(i.idle()) > p.MaxAge {
			out = append(out, i)
		}
	}
	return out
}

// excess returns how many bytes must be freed to bring the file system below the low threshold; 0 or less if
// it is there.
func (p Policy) excess(d disk) int64 { return d.size*int64(100-p.LowPercent)/100 - d.free }

// surplus returns the images to remove so that their sizes are at least want bytes together, the least
// recently used first, and all that may be removed if that is not enough. Images that were first seen after
// newest are too young.
func surplus(images []image, newest time.Time, want int64) []image {
	var out []image
	for _, i := range inOrder(images) {
		if want <= 0 {
			break
		}
		if i.seen.After(newest) {
			continue
		}

		out = append(out, i)
		want -= i.size
	}

	return out
}

// inOrder returns the images that may be removed in kubelet's order: the least recently used first, those
// that were never used before them, and of these the one that is on the node for longest.
func inOrder(images []image) []image {
	out := slices.DeleteFunc(slices.Clone(images), func(i image) bool { return !i.removable() })
	slices.SortFunc(out, func(a, b image) int {
		return cmp.Or(a.used.Compare(b.used), a.seen.Compare(b.seen), strings.Compare(a.id, b.id))
	})
	return out
}
