package containerlog

import "bytes"

// maxPiece bounds how much of one line of the file is held in memory: what is longer is handed on in pieces.
// Runtimes cut lines at 16 KiB, but they can be told not to.
const maxPiece = 64 << 10

// splitter makes entries of a file that comes in blocks.
type splitter struct {
	pending []byte // the beginning of a line, or of the next piece of it
	open    bool   // a piece of the line was handed on: header tells what it belongs to
	header  Entry
	unknown bool // the open line is not in the format
}

// feed hands on the entries that are complete with this block. Their text is good until the next call.
func (s *splitter) feed(block []byte, emit func(Entry) error) error {
	for len(block) > 0 {
		part := block[:min(len(block), maxPiece-len(s.pending))]
		end := bytes.IndexByte(part, '\n')
		if end >= 0 {
			part = part[:end]
		}

		piece := part
		if len(s.pending) > 0 {
			s.pending = append(s.pending, part...)
			piece = s.pending
		}

		switch {
		case end >= 0:
			block = block[end+1:]
		case len(piece) == maxPiece:
			block = block[len(part):]
		default:
			s.pending = append(s.pending[:0], piece...)
			return nil
		}

		if err := s.piece(piece, end >= 0, emit); err != nil {
			return err
		}

		s.pending = s.pending[:0]
	}

	return nil
}

// finish hands on the last line though it has no line end.
func (s *splitter) finish(emit func(Entry) error) error {
	if len(s.pending) == 0 && !s.open {
		return nil
	}
	err := s.piece(s.pending, true, emit)
	s.pending = s.pending[:0]
	return err
}

// piece hands on a line, or a part of one. A line that is not in the format (torn by a crash) is left out.
func (s *splitter) piece(text []byte, last bool, emit func(Entry) error) error {
	e := s.header
	if s.open {
		e.Text = text
	} else {
		var err error
		e, err = ParseEntry(text)
		s.unknown = err != nil
		s.header = Entry{Time: e.Time, Stream: e.Stream, Partial: e.Partial}
	}

	s.open = !last
	if s.unknown {
		return nil
	}

	e.Partial = e.Partial || !last
	return emit(e)
}
