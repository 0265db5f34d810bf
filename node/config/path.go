package config

import (
	"fmt"
	"reflect"
	"strings"
)

// at is a pointer to the field of k at a path of JSON names, e.g. authentication.anonymous.enabled.
func (k *Kubelet) at(path string) (any, error) {
	v := reflect.ValueOf(k).Elem()
	for name := range strings.SplitSeq(path, ".") {
		next, ok := member(v, name)
		if !ok {
			return nil, fmt.Errorf("KubeletConfiguration has no field %s", path)
		}
		v = next
	}
	return v.Addr().Interface(), nil
}

// member is the field of a struct that has a name in JSON.
func member(v reflect.Value, name string) (reflect.Value, bool) {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	for i := range v.NumField() {
		if jsonName(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
