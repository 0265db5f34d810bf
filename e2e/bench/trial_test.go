package bench

import (
	"testing"
	"time"
)

func TestTrialsAreShownByTheirMedianAndMeanProcessorTime(t *testing.T) {
	all := Trials{
		{Took: 3 * time.Second, CPU: time.Second},
		{Took: time.Second, CPU: 2 * time.Second},
		{Took: 2 * time.Second, CPU: 3 * time.Second},
	}
	if got := all.String(); got != "2.00 (1.00, 3.00) | 2.00" {
		t.Error(got)
	}
}
