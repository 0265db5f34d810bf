package streaming

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/monitor"
)

func TestPipesCarryInputAndOutput(t *testing.T) {
	var p pipes
	defer p.close()

	var stdout, stderr bytes.Buffer
	stdin, err := p.input(strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}

	out, err := p.output(&stdout)
	if err != nil {
		t.Fatal(err)
	}

	errOut, err := p.output(&stderr)
	if err != nil {
		t.Fatal(err)
	}
	if absent, err := p.output(nil); absent != nil || err != nil {
		t.Errorf("a stream that the client did not ask for: %v, %v", absent, err)
	}

	// The process has ends of its own, as after an exec.
	processIn := copyOf(t, stdin)
	processOut := copyOf(t, out)
	processErr := copyOf(t, errOut)
	p.start()
	input, err := io.ReadAll(processIn)
	if err != nil || string(input) != "hello" {
		t.Errorf("the process reads %q, %v", input, err)
	}

	io.WriteString(processOut, "answer")
	processOut.Close()
	io.WriteString(processErr, "warning")
	processErr.Close()
	p.finish()
	if stdout.String() != "answer" || stderr.String() != "warning" {
		t.Errorf("the client gets %q and %q", stdout.String(), stderr.String())
	}
}

func copyOf(t *testing.T, f *os.File) *os.File {
	t.Helper()
	again, err := reopened(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

func TestOutputEndsThoughAProcessThatWasLeftBehindHoldsIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()

	if _, err := io.WriteString(w, "last words"); err != nil {
		t.Fatal(err)
	}

	limitOutput(r)
	// One byte at a time, as a slow client reads: the end comes after all that was there.
	var got []byte
	from := &processOutput{f: r}
	for {
		var b [1]byte
		n, err := from.Read(b[:])
		got = append(got, b[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	if string(got) != "last words" {
		t.Errorf("got %q", got)
	}
}

func TestStatusHasTheExitCodeOfACommandThatFailed(t *testing.T) {
	if s := statusOf(nil); s.Status != "Success" || s.Details != nil {
		t.Errorf("success: %+v", s)
	}

	s := statusOf(exitError{monitor.Exit{Code: 7}})
	if s.Status != "Failure" || s.Reason != "NonZeroExitCode" || len(s.Details.Causes) != 1 ||
		s.Details.Causes[0].Message != "7" {
		t.Errorf("exit code 7: %+v", s)
	}

	s = statusOf(errors.New("broken"))
	if s.Status != "Failure" || s.Code != 500 || !strings.Contains(s.Message, "broken") {
		t.Errorf("another error: %+v", s)
	}
}
