package imagegc

import (
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// hours returns the time so many hours before noon.
func hours(n int) time.Time { return noon.Add(-time.Duration(n) * time.Hour) }

func ids(images []image) []string {
	out := []string{}
	for _, i := range images {
		out = append(out, i.id)
	}
	return out
}

func TestLeastRecentlyUsedImagesGoFirst(t *testing.T) {
	images := []image{
		{id: "used-1h-ago", size: 10, seen: hours(9), used: hours(1)},
		{id: "never-used", size: 10, seen: hours(5)},
		{id: "used-3h-ago", size: 10, seen: hours(8), used: hours(3)},
		{id: "never-used-older", size: 10, seen: hours(7)},
		{id: "in-use", size: 10, seen: hours(9), used: hours(9), inUse: true},
		{id: "pinned", size: 10, seen: hours(9), pinned: true},
		{id: "just-pulled", size: 10, seen: noon},
	}

	all := []string{"never-used-older", "never-used", "used-3h-ago", "used-1h-ago"}
	for _, c := range []struct {
		name string
		want int64
		out  []string
	}{
		{"nothing is to be freed", 0, nil},
		{"there is more than the low threshold needs", -5, nil},
		{"one image is enough", 10, all[:1]},
		{"one image is not quite enough", 11, all[:2]},
		{"more than there is", 1 << 40, all},
	} {
		got := ids(surplus(images, hours(1).Add(time.Minute), c.want))
		if !slices.Equal(got, c.out) {
			t.Errorf("%s: %q, want %q", c.name, got, c.out)
		}
	}
}

func TestImagesThatWereNotUsedForLongGo(t *testing.T) {
	images := []image{
		{id: "old", seen: hours(30), used: hours(25)},
		{id: "never-used", seen: hours(26)},
		{id: "never-used-new", seen: hours(1)},
		{id: "recent", seen: hours(30), used: hours(23)},
		{id: "in-use", seen: hours(30), used: hours(30), inUse: true},
		{id: "pinned", seen: hours(30), used: hours(30), pinned: true},
	}

	for age, want := range map[time.Duration][]string{
		0:              {},
		24 * time.Hour: {"never-used", "old"},
		40 * time.Hour: {},
	} {
		if got := ids(Policy{MaxAge: age}.aged(images, noon)); !slices.Equal(got, want) {
			t.Errorf("maximum age %v: %q, want %q", age, got, want)
		}
	}
}

func TestThresholdsAreKubelets(t *testing.T) {
	p := Policy{HighPercent: 85, LowPercent: 80}
	for _, c := range []struct {
		disk   disk
		used   int
		excess int64
	}{
		{disk{size: 1000, free: 1000}, 0, -800},
		{disk{size: 1000, free: 200}, 80, 0},
		{disk{size: 1000, free: 151}, 85, 49},
		{disk{size: 1000, free: 159}, 85, 41},
		{disk{size: 1000, free: 160}, 84, 40},
		{disk{size: 1000, free: 0}, 100, 200},
		{disk{size: 1000, free: 2000}, 0, -1800},
	} {
		if got := c.disk.usedPercent(); got != c.used {
			t.Errorf("%+v: %d%% used, want %d%%", c.disk, got, c.used)
		}
		if got := p.excess(c.disk); got != c.excess {
			t.Errorf("%+v: %d bytes to free, want %d", c.disk, got, c.excess)
		}
	}
}

func TestSizesAreWrittenAsKubeletWritesThem(t *testing.T) {
	for bytes, want := range map[int64]string{
		0:        "0 B",
		1023:     "1023 B",
		1024:     "1.0 KiB",
		1536:     "1.5 KiB",
		20 << 20: "20.0 MiB",
		5 << 30:  "5.0 GiB",
		3 << 40:  "3.0 TiB",
		3 << 50:  "3072.0 TiB",
	} {
		if got := formatSize(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}
