package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/specs/suite"
	"github.com/trivet-node/trivet/internal/durable"
)

// line of a file: either what was tested or an attempt at a spec.
type line struct {
	Subject *Subject `json:"subject,omitempty"`

	Spec    string        `json:"spec,omitempty"`
	Outcome suite.Outcome `json:"outcome,omitempty"`
	Seconds float64       `json:"seconds,omitempty"`
	Message string        `json:"message,omitempty"`

	// Again marks the second attempt.
	Again bool `json:"again,omitempty"`
}

// maxMessage bounds the message of a spec, in bytes.
const maxMessage = 300

func lineOf(r suite.Result, again bool) line {
	message := fromHere(r.Message)
	if len(message) > maxMessage {
		message = string(bytes.ToValidUTF8([]byte(message[:maxMessage]), nil)) + "..."
	}

	return line{
		Spec:    r.Name,
		Outcome: r.Outcome,
		Seconds: math.Round(r.Took.Seconds()*10) / 10,
		Message: message,
		Again:   again,
	}
}

// fromHere has the paths in a message begin in the working directory, or in the user's own (~): results are
// kept as data, and read elsewhere.
func fromHere(message string) string {
	if dir, err := os.Getwd(); err == nil && dir != "/" {
		message = strings.ReplaceAll(message, dir+"/", "")
	}
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		message = strings.ReplaceAll(message, home+"/", "~/")
	}
	return message
}

func (l line) result() suite.Result {
	return suite.Result{
		Name:    l.Spec,
		Outcome: l.Outcome,
		Took:    time.Duration(l.Seconds * float64(time.Second)),
		Message: l.Message,
	}
}

func (l line) encode() ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(l)
	return buf.Bytes(), err
}

// decode reads whole lines. Each file of several shards has its own first line, and files may be joined if
// these are of the same subject.
func decode(data []byte) (Subject, Set, error) {
	var subject *Subject
	set := Set{}
	for n := 1; len(data) > 0; n++ {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest

		var l line
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			return Subject{}, nil, fmt.Errorf("line %d: %w", n, err)
		}

		switch {
		case l.Subject != nil && subject != nil && !subject.Same(*l.Subject):
			return Subject{}, nil, fmt.Errorf("line %d: results of different subjects", n)
		case l.Subject != nil:
			subject = l.Subject
		case subject == nil:
			return Subject{}, nil, fmt.Errorf("line %d: the first line does not say what was tested", n)
		case l.Spec == "" || l.Outcome == "":
			return Subject{}, nil, fmt.Errorf("line %d: not a result", n)
		default:
			set.add(l.result(), l.Again)
		}
	}

	if subject == nil {
		return Subject{}, nil, errors.New("it is empty")
	}

	return *subject, set, nil
}

// Read reads a file.
func Read(path string) (Subject, Set, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Subject{}, nil, err
	}

	subject, set, err := decode(data)
	if err != nil {
		return Subject{}, nil, fmt.Errorf("results %s: %w", path, err)
	}

	return subject, set, nil
}

// Write replaces a file with the records of a finished run, sorted. Those that it has of the same subject, of
// other shards, are kept.
func Write(path string, subject Subject, set Set) error {
	merged := Set{}
	old, kept, err := Read(path)
	switch {
	case err == nil && old.Same(subject):
		merged = kept
		subject.Date = old.Date
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}

	maps.Copy(merged, set)
	data, err := line{Subject: &subject}.encode()
	if err != nil {
		return err
	}

	for _, r := range merged.Sorted() {
		text, err := encodeRecord(r)
		if err != nil {
			return err
		}

		data = append(data, text...)
	}

	return durable.WriteFile(path, data, 0o644)
}

func encodeRecord(r Record) ([]byte, error) {
	text, err := lineOf(r.First, false).encode()
	if err != nil || r.Second == nil {
		return text, err
	}

	second, err := lineOf(*r.Second, true).encode()
	return append(text, second...), err
}
