package config

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Logging is LoggingConfiguration: the agent has its own flags, --log-level and --log-format.
type Logging struct {
	Format         string          `json:"format,omitempty"`
	FlushFrequency json.RawMessage `json:"flushFrequency,omitempty"` // 5s, or a number of nanoseconds
	Verbosity      uint32          `json:"verbosity"`
	VModule        []VModule       `json:"vmodule,omitempty"`
	Options        LogOptions      `json:"options,omitempty"`
}

// VModule is the verbosity of some source files.
type VModule struct {
	FilePattern string `json:"filePattern"`
	Verbosity   uint32 `json:"verbosity"`
}

// LogOptions are those of the formats.
type LogOptions struct {
	Text LogOutput `json:"text,omitempty"`
	JSON LogOutput `json:"json,omitempty"`
}

// LogOutput is where lines of a format go.
type LogOutput struct {
	SplitStream    bool              `json:"splitStream,omitempty"`
	InfoBufferSize resource.Quantity `json:"infoBufferSize,omitempty"`
}

// Tracing is TracingConfiguration.
type Tracing struct {
	Endpoint               *string `json:"endpoint,omitempty"`
	SamplingRatePerMillion *int32  `json:"samplingRatePerMillion,omitempty"`
}
