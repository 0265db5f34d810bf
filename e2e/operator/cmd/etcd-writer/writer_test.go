package main

import (
	"os"
	"testing"
)

func TestAcknowledgedWriteThatIsNotThereIsLost(t *testing.T) {
	journals := [][]entry{
		{{seq: 1, revision: 10, at: 1000}, {seq: 2, revision: 12, at: 1900}},
		{{seq: 1, revision: 11, at: 1100}, {seq: 4, revision: 11, at: 1200}},
	}
	there := map[string]bool{
		key(0, 1): true,
		key(1, 1): true,
		key(1, 2): true,
		key(1, 4): true,
	}

	want := verdict{
		Acknowledged: 4,
		Lost:         1,
		InDoubt:      1,
		Backwards:    1,
		LongestPause: 700,
	}
	if got := judge(journals, there); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestJournalGoesOnAfterALineThatIsCutOff(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, 0)
	if err != nil {
		t.Fatal(err)
	}

	for seq := 1; seq <= 3; seq++ {
		if err := j.note(entry{seq: seq, revision: int64(seq), at: 5}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(journalPath(dir, 0), int64(len("1 1 5\n2 2 5\n3 "))); err != nil {
		t.Fatal(err)
	}

	j, err = openJournal(dir, 0)
	if err != nil || j.last != 2 {
		t.Fatalf("goes on after %d, %v", j.last, err)
	}
	if err := j.note(entry{seq: 3, revision: 9, at: 6}); err != nil {
		t.Fatal(err)
	}

	entries, err := readJournal(journalPath(dir, 0))
	if err != nil || len(entries) != 3 || entries[2].revision != 9 {
		t.Errorf("entries %v, %v", entries, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
