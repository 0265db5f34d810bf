package kind

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// sampled passes on some of the lines that are written to it: the first after each interval, so that a long
// command shows how far it is.
type sampled struct {
	out   io.Writer
	every time.Duration

	mu   sync.Mutex // guards what follows
	rest []byte
	next time.Time
}

func (s *sampled) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.rest = append(s.rest, data...)
	for {
		line, rest, whole := bytes.Cut(s.rest, []byte("\n"))
		if !whole {
			return len(data), nil
		}

		s.rest = rest
		line = bytes.TrimSpace(line)
		now := time.Now()
		if now.Before(s.next) || len(line) == 0 {
			continue
		}

		s.next = now.Add(s.every)
		if _, err := s.out.Write(append([]byte("         "), append(line, '\n')...)); err != nil {
			return 0, err
		}
	}
}
