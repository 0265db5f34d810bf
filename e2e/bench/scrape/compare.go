package main

import (
	"math"
	"slices"
	"strings"
)

// snapshots are the same endpoint twice; a counter's value is its rate between them.
type snapshots struct {
	first, last page
	seconds     float64
}

// row is what both nodes say about one family.
type row struct {
	name  string
	kind  string
	there bool // ours has it

	// missing are kubelet's labels that ours does not have.
	missing []string

	// where is whose values these are: POD/CONTAINER, POD, or part of the node.
	where        string
	theirs, ours float64

	// groups is how many wheres have a value at kubelet's, and off those that differ by more than noise.
	groups, off int
}

// noise is how much two values of one load may differ, relative to kubelet's.
const noise = 0.15

// ratio of ours to kubelet's.
func (r row) ratio() float64 {
	if r.theirs == r.ours {
		return 1
	}
	return r.ours / r.theirs
}

// compare returns a row for each family that theirs has, by name.
func compare(ours, theirs snapshots) []row {
	mine, reference := ours.families(), theirs.families()
	var rows []row
	for name, theirs := range reference {
		r := row{name: name, kind: theirs.kind}
		if ours := mine[name]; ours != nil {
			r.there = true
			r.missing = theirs.labelsWithout(ours)
			r.pick(ours, theirs)
		}

		rows = append(rows, r)
	}

	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	return rows
}

// pick takes the values of the place where kubelet's is largest, in the pods that work if they have any, and
// counts the places that are off.
func (r *row) pick(ours, theirs *family) {
	for where, value := range theirs.values {
		if value == 0 && ours.values[where] == 0 {
			continue
		}

		r.groups++
		if differ(r.name, ours.values[where], value) {
			r.off++
		}

		if r.where == "" || ranks(where) > ranks(r.where) ||
			ranks(where) == ranks(r.where) && value > r.theirs {
			r.where, r.theirs, r.ours = where, value, ours.values[where]
		}
	}
}

// ranks puts containers of pods that work before the pods and sandboxes, and both before the rest of the
// node.
func ranks(where string) int {
	load, container, _ := strings.Cut(where, "/")
	switch {
	case where == restOfNode || load == "idle":
		return 0
	case where == wholeNode:
		return 1
	case container == "" || container == "sandbox":
		return 2
	}
	return 3
}

// differ reports whether two values of one load differ by more than noise: relatively, and by more than what
// one small process more or less makes, such as that of pause.
func differ(name string, a, b float64) bool {
	floor := 0.0
	switch {
	case strings.HasSuffix(name, "_bytes") || strings.HasSuffix(name, "Bytes"):
		floor = 2 << 20
	case strings.HasSuffix(name, "_seconds_total"):
		floor = 0.003
	case strings.HasSuffix(name, "NanoCores") || strings.HasSuffix(name, "NanoSeconds"):
		floor = 3e6
	}

	difference := math.Abs(a - b)
	return difference > floor && difference > noise*math.Abs(b)
}

// family is the values of one family by where they belong.
type family struct {
	kind   string
	labels map[string]bool
	values map[string]float64
}

func (f *family) labelsWithout(other *family) []string {
	var missing []string
	for label := range f.labels {
		if !other.labels[label] {
			missing = append(missing, label)
		}
	}
	slices.Sort(missing)
	return missing
}

// families are those of the last page, with the values of both.
func (s snapshots) families() map[string]*family {
	before, after := sums(s.first), sums(s.last)
	all := map[string]*family{}
	for _, x := range s.last.series {
		name := s.last.family(x.name)
		if all[name] == nil {
			all[name] = &family{
				kind:   s.last.types[name],
				labels: map[string]bool{},
				values: map[string]float64{},
			}
		}

		for label := range x.labels {
			all[name].labels[label] = true
		}
	}

	for place, last := range after {
		first, known := before[place]
		if !known {
			first = last
		}

		f := all[place.family]
		f.values[place.where] = s.valueOf(f.kind, first, last)
	}

	return all
}

// valueOf is the rate of a counter, a second, and the mean of anything else.
func (s snapshots) valueOf(kind string, first, last sum) float64 {
	if kind != "counter" && kind != "histogram" && kind != "summary" {
		return (first.value + last.value) / 2
	}

	seconds := s.seconds
	if last.when > first.when && first.when > 0 {
		seconds = float64(last.when-first.when) / 1000
	}
	return (last.value - first.value) / seconds
}

// place is where a sum belongs.
type place struct{ family, where string }

// sum of the series of a family in one place, and when the latest of them was taken.
type sum struct {
	value float64
	when  int64
}

// sums adds up a page. Of a histogram, how often something was observed counts.
func sums(p page) map[place]sum {
	all := map[place]sum{}
	for _, x := range p.series {
		name := p.family(x.name)
		if name != x.name && !strings.HasSuffix(x.name, "_count") {
			continue
		}

		at := place{name, whereOf(x.labels)}
		all[at] = sum{all[at].value + x.value, max(all[at].when, x.when)}
	}
	return all
}

// The wheres of what is not a pod of the benchmark's.
const (
	wholeNode  = "node"
	restOfNode = "rest"
)

// whereOf says whose value a series has. A pod of the load has the same name on both nodes, up to its side;
// all idle pods are one. A container without a name but with an image is the sandbox.
func whereOf(labels map[string]string) string {
	pod, container, id := labels["pod"], labels["container"], labels["id"]
	switch {
	case pod != "" && labels["namespace"] == loadNamespace:
		return podOf(pod, container, labels["image"])
	case id == "/" || id == "" && pod == "" && container == "":
		return wholeNode
	}
	return restOfNode
}

func podOf(pod, container, image string) string {
	load, _, _ := strings.Cut(pod, "-")
	if container == "" && image != "" {
		container = "sandbox"
	}
	if container == "" {
		return load
	}
	return load + "/" + container
}
