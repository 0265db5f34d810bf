package life

import (
	"time"

	"github.com/trivet-node/trivet/cri/monitor"
)

// Reasons that ContainerStatus shows. Kubelet and its users know the first four from other runtimes.
const (
	ReasonCompleted  = "Completed"
	ReasonError      = "Error"
	ReasonOOMKilled  = "OOMKilled"
	ReasonStartError = "StartError"

	// ReasonUnknown is that of a container whose exit nobody has seen.
	ReasonUnknown = "Unknown"

	// ReasonCannotRun is that of a container whose creation failed and could not be undone.
	ReasonCannotRun = "ContainerCannotRun"
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

// Ended returns the ending that an exit is told as.
func Ended(e monitor.Exit) Ending {
	end := Ending{Code: e.Code, At: e.At}
	switch {
	case e.Unknown:
		end.Reason = ReasonUnknown
		end.Message = "exit status unknown: monitor and server were dead when it ended"
	case e.OOM:
		end.Reason = ReasonOOMKilled
	case e.Code == 0:
		end.Reason = ReasonCompleted
	default:
		end.Reason = ReasonError
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
	if reason == ReasonOOMKilled {
		return Ending{}, false
	}
	return Ending{
		Code:    startErrorCode,
		Reason:  ReasonStartError,
		Message: cause.Error(),
		At:      now,
	}, true
}

// NotUndone returns the ending of a container whose creation failed and could not be undone.
func NotUndone(cause error, now time.Time) Ending {
	return Ending{
		Code:    startErrorCode,
		Reason:  ReasonCannotRun,
		Message: cause.Error(),
		At:      now,
	}
}
