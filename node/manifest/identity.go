package manifest

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"reflect"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/dump"
)

// uid is what kubelet calls the pod of a manifest, given as JSON: FNV-1a of the dump of the decoded pod with
// its defaults, then of where it comes from. Comments, unknown fields and the order of keys do not count.
//
// kubelet dumps its internal type. That has the fields of v1.Pod in the same order; only the names of the
// types, which the dump contains, begin with core instead of v1. What looks like such a name in the pod's own
// text is hidden from the exchange by a mark.
func uid(text string, from Origin) (types.UID, error) {
	pod := &v1.Pod{}
	if _, err := decode(exchange().hide.Replace(text), pod); err != nil {
		return "", err
	}

	setDefaults(pod)

	// the internal type does not say what it is
	pod.Kind, pod.APIVersion = "", ""

	// loads the time zone, which the dump shows of each time, as in kubelet
	_ = time.Local.String()

	h := fnv.New128a()
	io.WriteString(h, exchange().rename.Replace(dump.ForHash(pod)))
	if from.URL != "" {
		fmt.Fprintf(h, "url:%s", from.URL)
	} else {
		fmt.Fprintf(h, "host:%sfile:%s", from.Node, from.File)
	}

	return types.UID(hex.EncodeToString(h.Sum(nil))), nil
}

// replacers exchange the names of types.
type replacers struct {
	hide   *strings.Replacer // puts the mark into what looks like a type's name, in JSON
	rename *strings.Replacer // v1.Name to core.Name in the dump, and marks away
}

// exchange knows the types of package v1 that a pod is made of. The types of metav1, whose package has the
// same name, keep theirs.
var exchange = sync.OnceValue(func() replacers {
	names := map[string]bool{}
	addNames(names, reflect.TypeFor[v1.Pod](), map[reflect.Type]bool{})
	var hide, rename []string
	for name := range maps.Keys(names) {
		// v1.Pod is not the beginning of v1.PodSpec
		for _, end := range []string{")", "]"} {
			hide = append(hide, "v1."+name+end, `v1.\u0001`+name+end)
			rename = append(rename, "v1."+name+end, "core."+name+end, "v1.\x01"+name+end, "v1."+name+end)
		}
	}
	return replacers{strings.NewReplacer(hide...), strings.NewReplacer(rename...)}
})

// addNames adds the names of the types of package v1 that t is made of.
func addNames(names map[string]bool, t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}

	seen[t] = true
	if t.PkgPath() == reflect.TypeFor[v1.Pod]().PkgPath() {
		names[t.Name()] = true
	}

	switch t.Kind() {
	case reflect.Struct:
		for field := range t.Fields() {
			addNames(names, field.Type, seen)
		}

	case reflect.Map:
		addNames(names, t.Key(), seen)
		addNames(names, t.Elem(), seen)
	case reflect.Pointer, reflect.Slice:
		addNames(names, t.Elem(), seen)
	}
}
