package attend

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/trivet-node/trivet/release/installer/drain"
)

// summary says how the order ended.
func summary(v view) string {
	record := v.record
	text := fmt.Sprintf("%s has the seat", record.State())
	if record.Failure == "" {
		text += outage(v)
	}
	if record.Failure != "" {
		text += fmt.Sprintf("; %s was taken back: %s", record.Order.To, record.Failure)
	}
	if record.Left != "" {
		text += "; left over: " + record.Left
	}

	return text
}

// outage says for how long the node was without what.
func outage(v view) string {
	var was []string
	if cordoned := cordonedFor(v); cordoned != "" {
		was = append(was, "out of use for "+cordoned)
	}
	if record := v.record; !record.Stopped.IsZero() && !record.Ready.IsZero() {
		// The status of a node has whole seconds: it is from before the next one.
		ready := math.Ceil(record.Ready.Add(time.Second).Sub(record.Stopped).Seconds())
		was = append(was, "without its agent for "+seconds(record.Switched.Sub(record.Stopped)),
			fmt.Sprintf("and Ready within %.0f s", ready))
	}
	if len(was) == 0 {
		return ""
	}
	return "; the node was " + strings.Join(was, ", ")
}

// maxText is what an event may have.
const maxText = 900

func clip(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// cordonedFor is how long the node was out of use for the last order; empty: it is not known.
func cordonedFor(v view) string {
	if t := trialOf(v.node, v.part); t.Order == v.order.ID {
		return t.Cordoned
	}
	if since := drain.Since(v.node, v.part); !since.IsZero() {
		return seconds(time.Since(since))
	}
	return ""
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
