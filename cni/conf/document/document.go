// Package document reads JSON objects key by key: a value of a wrong type is remembered with the path of its
// key, and the others are read nevertheless.
//
// encoding/json fills structs by a table for each type, which it makes by reflection at the first use. In a
// process that reads one small object and ends, such tables were two thirds of what reading took.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Object is a JSON object. The zero Object has no keys.
type Object struct {
	// members are in the order of the document. A key that is there more than once is read each time, as
	// encoding/json does.
	members []member
	// path leads to the object, "" or with a dot at its end.
	path string
	// failure is the first value of a wrong type of the whole document.
	failure *error
}

// member is a key, as fold has it, with its value.
type member struct {
	key   string
	value json.RawMessage
}

// Parse reads a document, which is the Object's from then on. It is an error unless that is an object.
func Parse(data []byte) (Object, error) {
	o := Object{failure: new(error)}
	return o, o.parse(data)
}

// parse adds the keys of an object, which null is one without.
func (o *Object) parse(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	begin, err := d.Token()
	if err != nil {
		return endEarly(err)
	}
	if begin != nil && begin != json.Delim('{') {
		return errNotObject
	}

	for begin != nil && d.More() {
		if err := o.parseMember(d, data); err != nil {
			return endEarly(err)
		}
	}

	return parseEnd(d, begin != nil)
}

// parseMember adds a key with its value, which stays in the data.
func (o *Object) parseMember(d *json.Decoder, data []byte) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	begin := d.InputOffset()
	if err := d.Decode(&skipped{}); err != nil {
		return err
	}

	// In an object, this is always text.
	key, _ := token.(string)
	end := d.InputOffset()
	value := bytes.TrimLeft(data[begin:end:end], ": \t\r\n")
	o.members = append(o.members, member{key: fold(key), value: value})
	return nil
}

// skipped takes any value.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }

// all returns the values of a key. Before any other one, null is that the key is absent.
func (o Object) all(key string) (values []json.RawMessage) {
	key = fold(key)
	for _, m := range o.members {
		if m.key == key && (len(values) > 0 || !isNull(m.value)) {
			values = append(values, m.value)
		}
	}
	return values
}

// parseEnd returns an error unless nothing is left but the brace of an object.
func parseEnd(d *json.Decoder, isObject bool) error {
	if isObject {
		if _, err := d.Token(); err != nil {
			return endEarly(err)
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the JSON object")
	}
	return nil
}

var (
	errNotObject = errors.New("it is not a JSON object")
	errTwice     = errors.New("the key is there more than once, with lists of objects")
)

// endEarly is what the end of the data means where a document goes on.
func endEarly(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

// fold returns a key as all those have it that encoding/json takes for the same one, if it is one that
// configurations have: besides the case, Unicode folds two letters to those of ASCII.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case r == '\u017f':
			return 's'
		case r == '\u212a':
			return 'k'
		}
		return r
	}, key)
}

// Err returns an error that names the first key, of those that were read, whose value has a wrong type. It is
// that of the whole document, whichever of its objects is asked.
func (o Object) Err() error {
	if o.failure == nil {
		return nil
	}
	return *o.failure
}

// Raw returns the JSON of a key, the last one that is not null; nil when the object has none.
func (o Object) Raw(key string) json.RawMessage {
	for _, raw := range slices.Backward(o.all(key)) {
		if !isNull(raw) {
			return raw
		}
	}
	return nil
}

// Read reads the value of a key, if the object has it, into what a pointer leads to: text, a number, a
// condition, a list of those, or what reads itself from JSON.
func (o Object) Read(key string, into any) {
	for _, raw := range o.all(key) {
		o.note(key, json.Unmarshal(raw, into))
	}
}

// Object returns the object of a key, with the keys of all of them when there is more than one; the zero
// Object when there is none.
func (o Object) Object(key string) Object {
	inner := Object{path: o.path + key + ".", failure: o.failure}
	for _, raw := range o.all(key) {
		o.note(key, inner.parse(raw))
	}
	return inner
}

// Objects returns the list of objects of a key.
func (o Object) Objects(key string) (all []Object) {
	var list []json.RawMessage
	o.readOnce(key, &list)
	return o.each(key, list)
}

// readOnce reads the list of a key, which has to be the only one: of more, encoding/json makes elements that
// have keys of each, by their place in the lists.
func (o Object) readOnce(key string, into any) {
	if len(o.all(key)) > 1 {
		o.note(key, errTwice)
		return
	}
	o.Read(key, into)
}

// ObjectLists returns the list of lists of objects of a key.
func (o Object) ObjectLists(key string) (all [][]Object) {
	var lists [][]json.RawMessage
	o.readOnce(key, &lists)
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
