package bootid_test

import (
	"regexp"
	"testing"

	"github.com/trivet-node/trivet/internal/bootid"
)

func TestBootIDIsAUUIDThatStaysTheSame(t *testing.T) {
	first, err := bootid.Read()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(first) {
		t.Errorf("boot ID %q is not a UUID without further characters", first)
	}
	if second, err := bootid.Read(); err != nil || second != first {
		t.Errorf("read %q, then %q, %v", first, second, err)
	}
}
