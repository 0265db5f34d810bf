package btrfspool

import (
	"testing"
	"time"
)

// What is free is more than can be written until the next look, and looks are rare where much is free.
func TestPauseBetweenLooks(t *testing.T) {
	for _, c := range []struct {
		name string
		r    *reservation
		want time.Duration
	}{
		{"little is free", &reservation{free: 64 * mib}, lookPeriod},
		{"a headroom is free", &reservation{free: 3 * gib / 2}, 500 * time.Millisecond},
		{"much is free", &reservation{free: 8 * gib}, idlePeriod},
		{"somebody writes", &reservation{free: 8 * gib, burst: 2 * mib}, lookPeriod},
		{"it shrinks", &reservation{free: 8 * gib, working: true}, lookPeriod},
		{"the disk is full", &reservation{stuck: true, burst: 2 * mib}, idlePeriod},
	} {
		if got := c.r.pause(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
