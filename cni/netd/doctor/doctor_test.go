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

// What netd writes in both looks is not what nobody repairs.
func TestWhatChangesBetweenTwoLooksDoesNotLast(t *testing.T) {
	before := []Finding{
		{Level: Wrong, Object: "policies", What: "a is not as it should be", Seen: "1"},
		{Level: Wrong, Object: "policies", What: "b is not as it should be", Seen: "1"},
	}
	lasting := Lasting(before, []Finding{
		{Level: Wrong, Object: "policies", What: "a is not as it should be", Seen: "2"},
		{Level: Wrong, Object: "policies", What: "b is not as it should be", Seen: "1"},
	})
	if len(lasting) != 1 || lasting[0].What != before[1].What {
		t.Errorf("%v", lasting)
	}
}

func TestAFindingIsOneLineWhateverIsNamedInIt(t *testing.T) {
	f := Finding{Level: Wrong, Object: "policies", What: "chain a\nok     b\x1b[2K → 'c'"}
	const want = `wrong  policies: chain a\nok     b\x1b[2K → 'c'`
	if got := f.String(); got != want {
		t.Errorf("%q", got)
	}
}
