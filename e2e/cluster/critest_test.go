package cluster

import "testing"

func TestMachineOfCritestHasSomebodyInEachSeat(t *testing.T) {
	for _, oci := range []string{"crun", "runc"} {
		if err := critestSeats(oci).Validate(); err != nil {
			t.Error(err)
		}
	}
}
