package document_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/conf/document"
)

func parse(t *testing.T, text string) document.Object {
	t.Helper()
	o, err := document.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestValuesAreReadByTheirKeys(t *testing.T) {
	o := parse(t, `{"name": "n", "MTU": 1400, "up": true, "ips": ["a", "b"], "absent": null,
		"ipam": {"type": "static"}, "routes": [{"dst": "x"}, {"dst": "y"}],
		"ranges": [[{"subnet": "1"}, {"subnet": "2"}], [{"subnet": "3"}]]}`)

	var name, kind, other string
	var mtu int
	var up bool
	var ips []string
	pointer := new(int)
	o.Read("name", &name)
	o.Read("mtu", &mtu)
	o.Read("up", &up)
	o.Read("ips", &ips)
	o.Read("absent", &pointer)
	o.Read("other", &other)
	o.Object("ipam").Read("type", &kind)
	o.Object("absent").Read("type", &other)

	want := []any{"n", 1400, true, []string{"a", "b"}, "static", ""}
	if diff := cmp.Diff(want, []any{name, mtu, up, ips, kind, other}); diff != "" || pointer == nil {
		t.Error(diff)
	}

	var dst, subnets []string
	for _, r := range o.Objects("routes") {
		var d string
		r.Read("dst", &d)
		dst = append(dst, d)
	}
	for _, set := range o.ObjectLists("ranges") {
		for _, r := range set {
			var s string
			r.Read("subnet", &s)
			subnets = append(subnets, s)
		}
	}
	if diff := cmp.Diff([][]string{{"x", "y"}, {"1", "2", "3"}}, [][]string{dst, subnets}); diff != "" {
		t.Error(diff)
	}
	if err := o.Err(); err != nil {
		t.Error(err)
	}
}

func TestAWrongTypeIsNamedAndTheOthersAreRead(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"ipam": {"subnet": 5}, "name": "n"}`, "ipam.subnet: "},
		{`{"ipam": 5, "name": "n"}`, "ipam: "},
		{`{"ipam": {"ranges": [[{"subnet": true}]]}, "name": "n"}`, "ipam.ranges[0][0].subnet: "},
		{`{"ipam": {"ranges": [{}]}, "name": "n"}`, "ipam.ranges: "},
		{`{"ipam": {"ranges": [[1]]}, "name": "n"}`, "ipam.ranges[0][0]: "},
		{`{"mtu": 1.5, "name": "n"}`, "mtu: "},
	} {
		o := parse(t, c.text)
		var name, subnet string
		var mtu int
		i := o.Object("ipam")
		i.Read("subnet", &subnet)
		for _, set := range i.ObjectLists("ranges") {
			for _, r := range set {
				r.Read("subnet", &subnet)
			}
		}
		o.Read("mtu", &mtu)
		o.Read("name", &name)

		err := o.Err()
		if name != "n" || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: name %q, %v; want %q", c.text, name, err, c.want)
		}
	}
}

func TestWhatIsNotAnObjectIsRefused(t *testing.T) {
	for _, text := range []string{``, `5`, `[]`, `{`, `{} x`, `{"a": 01}`} {
		if _, err := document.Parse([]byte(text)); err == nil {
			t.Errorf("%q is taken for an object", text)
		}
	}
}

// FuzzRead compares what is read with what encoding/json reads into a struct.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`{"name":"a","mtu":1,"list":["x"],"inner":{"set":true},"items":[{"id":3}]}`,
		`{"NAME":"a","mtu":null,"inner":null}`,
		`{"mtu":"1"}`,
		`{"items":[{"id":"x"},{"id":2}]}`,
	} {
		f.Add([]byte(text))
	}

	type item struct {
		ID *int `json:"id"`
	}
	type keys struct {
		Name  string   `json:"name"`
		MTU   int      `json:"mtu"`
		List  []string `json:"list"`
		Inner struct {
			Set bool `json:"set"`
		} `json:"inner"`
		Items []item `json:"items"`
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		var want keys
		wantErr := json.Unmarshal(data, &want)

		o, err := document.Parse(data)
		var got keys
		o.Read("name", &got.Name)
		o.Read("mtu", &got.MTU)
		o.Read("list", &got.List)
		o.Object("inner").Read("set", &got.Inner.Set)
		for _, i := range o.Objects("items") {
			var read item
			i.Read("id", &read.ID)
			got.Items = append(got.Items, read)
		}
		if err == nil {
			err = o.Err()
		}

		// Keys that differ in case alone are one key here, whose last value the order of a map decides.
		if (err == nil) != (wantErr == nil) && !hasTwins(data) {
			t.Errorf("%q: %v, encoding/json says %v", data, err, wantErr)
		}
		if len(want.Items) == 0 {
			want.Items = nil
		}
		if diff := cmp.Diff(want, got); err == nil && wantErr == nil && diff != "" && !hasTwins(data) {
			t.Errorf("%q: %s", data, diff)
		}
	})
}

// hasTwins reports whether an object may have keys that differ in case alone, or one of them twice: what
// encoding/json makes of those depends on their order.
func hasTwins(data []byte) bool {
	lower := strings.ToLower(string(data))
	for _, key := range []string{"name", "mtu", "list", "inner", "set", "items", "id"} {
		if strings.Count(lower, key) > 1 {
			return true
		}
	}
	return strings.ContainsAny(lower, "\\\u017f\u212a") || strings.Contains(lower, "\ufffd")
}
