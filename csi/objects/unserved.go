package objects

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/served"
	"github.com/trivet-node/trivet/internal/retry"
)

// askAgain is how long AwaitServed waits until it asks again for kinds that nobody has installed yet.
const askAgain = 5 * time.Minute

// AwaitServed ends when a group is installed, which may be at any time. If that is not served in the version
// that is known here, it has said so.
func AwaitServed(ctx context.Context, client *kube.Client, log *slog.Logger, version schema.GroupVersion) {
	for range retry.Every(ctx, askAgain) {
		if SayUnserved(ctx, client, log, version) {
			return
		}
	}
}

// SayUnserved logs one line where the API server serves a group, but not in the version that is known here:
// its objects are there, and to this program it is as if nobody had installed them. It reports whether the
// group is installed.
func SayUnserved(
	ctx context.Context, client *kube.Client, log *slog.Logger, version schema.GroupVersion,
) (installed bool) {
	versions, err := served.Versions(ctx, client, version.Group)
	if err != nil || len(versions) == 0 {
		// A server that does not answer is said by those who watch the objects.
		return false
	}
	if !slices.Contains(versions, version.Version) {
		log.Warn("nothing is done about the objects of a group: the version that is known here is not served",
			"group", version.Group, "known", version.Version, "served", versions)
	}
	return true
}
