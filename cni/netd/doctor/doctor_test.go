package doctor

import "testing"

func TestWhatIsWrongLastsThoughItsNumbersChange(t *testing.T) {
	before := []Finding{
		{Level: Wrong, Object: "connections", What: "91 of 100", Varies: true},
		{Level: Wrong, Object: "routes", What: "to a is missing"},
		{Level: OK, Object: "addresses", What: "5 of 10", Varies: true},
	}
	lasting := Lasting(before, []Finding{
		{Level: Wrong, Object: "connections", What: "92 of 100", Varies: true},
		{Level: Wrong, Object: "routes", What: "to b is missing"},
		{Level: Wrong, Object: "addresses", What: "10 of 10", Varies: true},
		{Level: Note, Object: "module", What: "is there"},
	})
	if len(lasting) != 2 || lasting[0].What != "92 of 100" || lasting[1].Level != Note {
		t.Errorf("%v", lasting)
	}
}
