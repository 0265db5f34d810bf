package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAvailableIDsAreChecked(t *testing.T) {
	if err := everything(unit).Check(unit, 65535); err != nil {
		t.Error(err)
	}
	for want, c := range map[string]struct {
		Range
		perPod uint32
	}{
		"kubelet user namespace length 5 is not a multiple of 65536":   {Range{unit, unit}, 5},
		"assigned ID 70000 is not a multiple of 65536":                 {Range{70000, unit}, unit},
		"assigned ID 0 must be greater or equal to 65536":              {Range{0, unit}, unit},
		"assigned IDs length 70000 is not a multiple of 65536":         {Range{unit, 70000}, unit},
		"kubelet user assigned IDs are not enough to support 110 pods": {Range{unit, 109 * unit}, unit},
		"4294901760 from 131072 on are not all IDs":                    {Range{2 * unit, 65535 * unit}, unit},
		"assigned IDs length 4294770688 is not a multiple of 196608":   {everything(3 * unit), 3 * unit},
	} {
		if err := c.Check(c.perPod, 110); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", c, err, want)
		}
	}
}

// answers is a program in the place of getsubids.
func answers(t *testing.T, users, groups string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "getsubids")
	script := "#!/bin/sh\nif [ \"$1\" = -g ]; then printf '" + groups + "'; else printf '" + users + "'; fi\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSubordinateIDsOfKubeletAreTaken(t *testing.T) {
	const line = `0: kubelet 131072 7208960\n`
	if got, err := query(t.Context(), answers(t, line, line)); err != nil || got != (Range{131072, 7208960}) {
		t.Errorf("%v, %v", got, err)
	}

	for want, output := range map[string][2]string{
		"mismatched subuids and subgids": {line, `0: kubelet 65536 65536\n`},
		"only one line":                  {line + line, line + line},
		"invalid line":                   {`nothing\n`, `nothing\n`},
		"error parsing line":             {`0: kubelet -1 5\n`, `0: kubelet -1 5\n`},
	} {
		_, err := query(t.Context(), answers(t, output[0], output[1]))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", output, err, want)
		}
	}
}
