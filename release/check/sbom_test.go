package check

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/xeipuuv/gojsonschema"
)

// schema is CycloneDX' own, which its module for Go carries.
func schema(t *testing.T) *gojsonschema.Schema {
	t.Helper()
	module := output(t, nil, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go")
	dir := filepath.Join(strings.TrimSpace(module), "schema")

	loader := gojsonschema.NewSchemaLoader()
	for part, file := range map[string]string{
		"spdx.schema.json":     "spdx.schema.json",
		"jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}

		address := "http://cyclonedx.org/schema/" + part
		if err := loader.AddSchema(address, gojsonschema.NewBytesLoader(data)); err != nil {
			t.Fatal(err)
		}
	}

	data, err := os.ReadFile(filepath.Join(dir, "bom-1.6.schema.json"))
	if err != nil {
		t.Fatal(err)
	}

	compiled, err := loader.Compile(gojsonschema.NewBytesLoader(data))
	if err != nil {
		t.Fatal(err)
	}

	return compiled
}

func TestListsAreValidAndNameWhatIsInside(t *testing.T) {
	schema := schema(t)
	for _, name := range parts {
		data, err := os.ReadFile(files(t, "sbom/"+name+"_*.cdx.json")[0])
		if err != nil {
			t.Fatal(err)
		}

		result, err := schema.Validate(gojsonschema.NewBytesLoader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range result.Errors() {
			t.Errorf("%s: %s", name, fault)
		}

		var list cdx.BOM
		decoder := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON)
		if err := decoder.Decode(&list); err != nil {
			t.Fatal(err)
		}

		wanted := []string{name, "std", "golang.org/x/sys"}
		if name == "trivet-csi" {
			wanted = append(wanted, "libc6", "btrfs-progs", "e2fsprogs", "xfsprogs")
		}

		names := map[string]int{}
		for _, c := range *list.Components {
			names[c.Name]++
		}
		for _, want := range wanted {
			if names[want] == 0 {
				t.Errorf("the list of %s does not have %s", name, want)
			}
		}
		if names[name] != 2 {
			t.Errorf("the list of %s has the program for %d architectures, want 2", name, names[name])
		}
	}
}
