// Package document reads JSON objects key by key: a value of a wrong type is remembered with the path of its
// key, and the others are read nevertheless.
//
// encoding/json fills structs by a table for each type, which it makes by reflection at the first use. In a
// process that reads one small object and ends, such tables were two thirds of what reading took.
package document

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Object is a JSON object. The zero Object has no keys.
type Object struct {
	// values are what the keys have, by the key in lower case: as in encoding/json, case does not matter.
	values map[string]json.RawMessage
	// path leads to the object, "" or with a dot at its end.
	path string
	// failure is the first value of a wrong type of the whole document.
	failure *error
}

// Parse reads a document. It is an error unless that is an object.
func Parse(data []byte) (Object, error) {
	o := Object{failure: new(error)}
	return o, o.parse(data)
}

func (o *Object) parse(data []byte) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		return err
	}

	o.values = make(map[string]json.RawMessage, len(values))
	for key, value := range values {
		o.values[strings.ToLower(key)] = value
	}

	return nil
}

// Err returns an error that names the first key, of those that were read, whose value has a wrong type. It is
// that of the whole document, whichever of its objects is asked.
func (o Object) Err() error {
	if o.failure == nil {
		return nil
	}
	return *o.failure
}

// Raw returns the JSON of a key; nil when the object does not have it, or null.
func (o Object) Raw(key string) json.RawMessage {
	raw := o.values[strings.ToLower(key)]
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// Read reads the value of a key, if the object has it, into what a pointer leads to: text, a number, a
// condition, a list of those, or what reads itself from JSON.
func (o Object) Read(key string, into any) {
	raw := o.Raw(key)
	if raw == nil {
		return
	}
	o.note(key, json.Unmarshal(raw, into))
}

// Object returns the object of a key; the zero Object when there is none.
func (o Object) Object(key string) Object {
	raw := o.Raw(key)
	if raw == nil {
		return Object{failure: o.failure}
	}
	inner := Object{path: o.path + key + ".", failure: o.failure}
	o.note(key, inner.parse(raw))
	return inner
}

// Objects returns the list of objects of a key.
func (o Object) Objects(key string) (all []Object) {
	var list []json.RawMessage
	o.Read(key, &list)
	return o.each(key, list)
}

// ObjectLists returns the list of lists of objects of a key.
func (o Object) ObjectLists(key string) (all [][]Object) {
	var lists [][]json.RawMessage
	o.Read(key, &lists)
	for i, list := range lists {
		all = append(all, o.each(fmt.Sprintf("%s[%d]", key, i), list))
	}
	return all
}

// each parses the elements of a list.
func (o Object) each(name string, list []json.RawMessage) (all []Object) {
	for i, raw := range list {
		name := fmt.Sprintf("%s[%d]", name, i)
		element := Object{path: o.path + name + ".", failure: o.failure}
		o.note(name, element.parse(raw))
		all = append(all, element)
	}
	return all
}

// note remembers the first failure.
func (o Object) note(key string, err error) {
	if err != nil && *o.failure == nil {
		*o.failure = fmt.Errorf("%s%s: %w", o.path, key, err)
	}
}
