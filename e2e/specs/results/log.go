package results

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// Log is a file that grows while specs run. A process that is killed leaves a good one: the only line that
// can be incomplete is the last, and Open drops it. One process at a time may have it open.
type Log struct {
	file *os.File
	set  Set
	old  *Subject

	// failed is the error of a write, after which the file may end with a part of a line.
	failed error
}

// InMemory returns a log without a file.
func InMemory() *Log { return &Log{set: Set{}} }

// Open opens the log at path for results of the subject, with those that it has already. If these are of
// another subject, or if fresh is set, a new log begins and the old one is kept as path.old.
func Open(path string, subject Subject, fresh bool) (*Log, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	l := &Log{set: Set{}}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	begun := len(whole) > 0
	if begun {
		had, set, err := decode(whole)
		if err != nil && !fresh {
			return nil, fmt.Errorf("results %s: %w; FRESH=1 begins again and keeps it as %s.old",
				path, err, path)
		}

		if fresh || !had.Same(subject) {
			l.old = &had
			begun = false
		} else {
			l.set = set
		}
	}

	if !begun {
		return l, l.begin(path, subject, l.old != nil)
	}

	return l, l.goOn(path, int64(len(whole)))
}

// begin makes a new log.
func (l *Log) begin(path string, subject Subject, keep bool) error {
	if keep {
		if err := os.Rename(path, path+".old"); err != nil {
			return err
		}
	}

	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}

	l.file = file
	return l.write(line{Subject: &subject})
}

// goOn opens the log with its whole lines.
func (l *Log) goOn(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}

	// What follows them is of a write that was cut off.
	l.file = file
	return file.Truncate(size)
}

// Old is the subject of the results that Open did not go on with; nil if there were none.
func (l *Log) Old() *Subject { return l.old }

// Set are the results so far. The caller must not change it.
func (l *Log) Set() Set { return l.set }

// Add appends a result. When it returns nil, the result survives the end of the process.
func (l *Log) Add(r suite.Result, again bool) error {
	if err := l.write(lineOf(r, again)); err != nil {
		return err
	}
	l.set.add(r, again)
	return nil
}

func (l *Log) write(text line) error {
	if l.file == nil || l.failed != nil {
		return l.failed
	}

	data, err := text.encode()
	if err != nil {
		return err
	}
	if _, err := l.file.Write(data); err != nil {
		l.failed = fmt.Errorf("keep a result: %w", err)
	}

	return l.failed
}

// Close makes what was added survive a power loss, and closes the file.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}
