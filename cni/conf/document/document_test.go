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

func TestOfKeysThatAreTheSameTheLastCounts(t *testing.T) {
	for _, c := range []struct {
		text, name, kind string
		list             []string
	}{
		{text: `{"name":"a","NAME":"b"}`, name: "b"},
		{text: `{"NAME":"b","name":"a"}`, name: "a"},
		{text: `{"name":"a","name":null}`, name: "a"},
		{text: `{"name":null,"Name":"a"}`, name: "a"},
		{text: `{"lists":["x","y"],"li\u017fts":["z"]}`, list: []string{"z"}},
		{text: `{"ipam":{"type":"a","x":1},"IPAM":{"y":1}}`, kind: "a"},
		{text: `{"ipam":{"type":"a"},"IPAM":{"Type":"b"},"ipam":null}`, kind: "b"},
	} {
		// The order of a map would be another one each time.
		for range 20 {
			o := parse(t, c.text)
			var name, kind string
			var list []string
			o.Read("name", &name)
			o.Read("lists", &list)
			o.Object("ipam").Read("type", &kind)
			diff := cmp.Diff([]any{c.name, c.kind, c.list}, []any{name, kind, list})
			if diff != "" || o.Err() != nil {
				t.Fatalf("%s: %s, %v", c.text, diff, o.Err())
			}
		}
	}
}

func TestListsOfObjectsMayBeThereOnce(t *testing.T) {
	for _, text := range []string{
		`{"ranges":[[{"subnet":"1"}]],"Ranges":[[{"subnet":"2"}]]}`,
		`{"ranges":[[]],"ranges":null}`,
	} {
		o := parse(t, text)
		if all := o.ObjectLists("ranges"); all != nil || o.Err() == nil {
			t.Errorf("%s: %v, %v", text, all, o.Err())
		}
		o = parse(t, text)
		if all := o.Objects("ranges"); all != nil || o.Err() == nil {
			t.Errorf("%s: %v, %v", text, all, o.Err())
		}
	}

	if o := parse(t, `{"ranges":null,"ranges":[[{}]]}`); len(o.ObjectLists("ranges")) != 1 || o.Err() != nil {
		t.Error("a null before the list counts as one")
	}
}

// typical is a configuration as runtimes send it.
const typical = `{"cniVersion":"1.1.0","name":"cbr0","type":"trivet-cni","bridge":"cni0",
	"isDefaultGateway":true,"ipMasq":true,"hairpinMode":true,"mtu":1450,"capabilities":{"portMappings":true},
	"ipam":{"type":"host-local","dataDir":"/run/ipam","ranges":[[{"subnet":"10.244.1.0/24"}],
	[{"subnet":"fd00:244:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]},
	"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},
	"prevResult":{"cniVersion":"1.1.0",
	"interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/run/netns/a"}],
	"ips":[{"address":"10.244.1.7/24","gateway":"10.244.1.1","interface":1}]}}`

func BenchmarkRead(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		o, err := document.Parse([]byte(typical))
		if err != nil {
			b.Fatal(err)
		}
		var name, dir string
		o.Read("name", &name)
		i := o.Object("ipam")
		i.Read("dataDir", &dir)
		for _, set := range i.ObjectLists("ranges") {
			for _, r := range set {
				r.Read("subnet", &name)
			}
		}
	}
}

// seeds have keys of wrong types, twice, and in other letters; and errors.
var seeds = []string{
	`{"name":"a","mtu":1,"list":["x"],"inner":{"set":true},"items":[{"id":3}]}`,
	`{"NAME":"a","mtu":null,"inner":null}`,
	`{"mtu":"1"}`,
	`{"items":[{"id":"x"},{"id":2}]}`,
	`{"mtu":1,"Mtu":2,"MTU":null,"name":"a","NAME":"b","li\u017ft":["x","y"],"list":["z"],"LIST":null}`,
	`{"inner":{"set":true},"Inner":{"SET":null},"INNER":null,"inner":5}`,
	`{"items":[{"id":1,"ID":null},{"id":2,"\u0130d":3}]}`,
	`{"mtu":1,}`, `{"mtu" 1}`, `{"mtu":1`, `{"mtu":1} 2`, `{"mtu":1}}`, `null`, `null 1`, ``, `{"mtu"}`,
}

// FuzzRead compares what is read with what encoding/json reads into a struct.
func FuzzRead(f *testing.F) {
	for _, text := range seeds {
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

		// Of lists of objects, there may be one.
		if err != nil && strings.HasSuffix(err.Error(), "lists of objects") {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%q: %v, encoding/json says %v", data, err, wantErr)
		}
		if len(want.Items) == 0 {
			want.Items = nil
		}
		if diff := cmp.Diff(want, got); err == nil && wantErr == nil && diff != "" {
			t.Errorf("%q: %s", data, diff)
		}
	})
}
