package volume

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/space"
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

// BenchmarkList has a page of 100 volumes among 5,000, and one more, which says that there is a next one.
func BenchmarkList(b *testing.B) {
	index := newIndex(space.New(space.Config{Disk: fakeDisk(1 << 50)}))
	for i := range 5000 {
		spec := Spec{ID: ID(fmt.Sprint("volume-", i)), Size: mib, Backend: "pool"}
		index.put(spec.ID, record{Version: recordVersion, Phase: ready, Spec: spec})
	}
	s := &Store{catalog: &catalog{index: index, health: newHealth()}}

	b.ReportAllocs()
	for b.Loop() {
		if got := len(s.List("vol-8", 101)); got != 101 {
			b.Fatalf("%d volumes", got)
		}
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
