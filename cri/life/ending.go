package life

import (
	"time"

	"github.com/trivet-node/trivet/cri/monitor"
)

// Reasons that ContainerStatus shows. Kubelet and its users know the first four from other runtimes.
const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOMKilled  = "OOMKilled"
	reasonStartError = "StartError"

	// reasonUnknown is that of a container whose exit nobody has seen.
	reasonUnknown = "Unknown"

	// reasonCannotRun is that of a container whose creation failed and could not be undone.
	reasonCannotRun = "ContainerCannotRun"
)

// startErrorCode is the exit code of a container whose program never ran, as with Docker and containerd.
const startErrorCode = 128

// Ending is how a container ended, as ContainerStatus shows it.
type Ending struct {
	Code    int
	Reason  string
	Message string
	At      time.Time
}

// Ended returns the ending that an exit is reported as.
func Ended(e monitor.Exit) Ending {
	end := Ending{Code: e.Code, At: e.At}
	switch {
	case e.Unknown:
		end.Reason = reasonUnknown
		end.Message = "exit status unknown: monitor and server were dead when it ended"
	case e.OOM:
		end.Reason = reasonOOMKilled
	case e.Code == 0:
		end.Reason = reasonCompleted
	default:
		end.Reason = reasonError
	}

	return end
}

// Lost returns the exit of a container of which the monitor does not know.
func Lost(id string, now time.Time) monitor.Exit {
	return monitor.Exit{
		ID:      id,
		Code:    monitor.UnknownCode,
		Unknown: true,
		At:      now,
	}
}

// StartFailed returns the ending of a container whose program does not run and never will. reason is that of
// an ending that is recorded already, empty if none is: a container that was killed for its memory before it
// was started keeps that as the reason.
func StartFailed(reason string, cause error, now time.Time) (end Ending, changed bool) {
	if reason == reasonOOMKilled {
		return Ending{}, false
	}
	return Ending{
		Code:    startErrorCode,
		Reason:  reasonStartError,
		Message: cause.Error(),
		At:      now,
	}, true
}

// NotUndone returns the ending of a container whose creation failed and could not be undone.
func NotUndone(cause error, now time.Time) Ending {
	return Ending{
		Code:    startErrorCode,
		Reason:  reasonCannotRun,
		Message: cause.Error(),
		At:      now,
	}
}
