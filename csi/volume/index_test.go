package volume

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

// A field that is added to records must not get lost in memory.
func TestPackedRecordHasAllFields(t *testing.T) {
	want := record{
		Version: 7,
		Phase:   deleting,
		Origin:  Origin{Token: 8, Pool: "pool"},
		Created: time.Unix(9, 0),
		damage:  errors.New("damage"),
		missed:  true,
		entry:   10,
	}
	spec := reflect.ValueOf(&want.Spec).Elem()
	for _, field := range spec.Fields() {
		fill(t, field)
	}
	if zero := zeroField(reflect.ValueOf(want)); zero != "" {
		t.Fatalf("the test gives field %s no value", zero)
	}

	got := pack(want).record()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, was %+v", got, want)
	}
	if got := (*packed)(nil).record(); !reflect.DeepEqual(got, record{}) {
		t.Errorf("nothing is %+v", got)
	}
}

// fill gives a field some value.
func fill(t *testing.T, field reflect.Value) {
	t.Helper()
	switch field.Kind() {
	case reflect.String:
		field.SetString("text")
	case reflect.Int64:
		field.SetInt(42)
	case reflect.Bool:
		field.SetBool(true)
	case reflect.Map:
		field.Set(reflect.ValueOf(map[string]int64{"vol-1": 1}))
	case reflect.Struct:
		for _, inner := range field.Fields() {
			fill(t, inner)
		}
	default:
		t.Fatalf("a field of kind %s", field.Kind())
	}
}

// zeroField returns the name of a field without a value; "": there is none.
func zeroField(v reflect.Value) string {
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() {
			return v.Type().Field(i).Name
		}
		if name := v.Type().Field(i).Name; field.Kind() == reflect.Struct && name != "Created" {
			if inner := zeroField(field); inner != "" {
				return inner
			}
		}
	}
	return ""
}
