package imageserver

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/cri/registry"
)

func TestErrorsAreBounded(t *testing.T) {
	err := coded(errors.Join(errors.New("pull x: "+strings.Repeat("ö", 1<<20)), registry.ErrDenied))
	text := status.Convert(err).Message()
	if status.Code(err) != codes.PermissionDenied || len(text) > 5<<10 ||
		!strings.HasPrefix(text, "pull x") ||
		!strings.HasSuffix(text, "access denied") || !utf8.ValidString(text) {
		t.Errorf("%v with %d bytes", status.Code(err), len(text))
	}
}
