package containerlog

import "bytes"

// maxPiece bounds how much of one line of the file is held in memory: what is longer is emitted in pieces.
// Runtimes cut lines at 16 KiB, but they can be configured not to.
const maxPiece = 64 << 10

// splitter makes entries of blocks of a file.
type splitter struct {
	pending []byte // the beginning of a line, or of the next piece of it
	open    bool   // a piece of the line was emitted: header is what it belongs to
	header  entry
	unknown bool // the open line is not in the format
}

// feed emits the entries that are complete with this block. Their text is valid until the next call.
func (s *splitter) feed(block []byte, emit func(entry) error) error {
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

// finish emits the last line, which has no line end.
func (s *splitter) finish(emit func(entry) error) error {
	if len(s.pending) == 0 && !s.open {
		return nil
	}
	err := s.piece(s.pending, true, emit)
	s.pending = s.pending[:0]
	return err
}

// piece emits a line, or a part of one. A line that is not in the format, as a crash leaves, is skipped.
func (s *splitter) piece(text []byte, last bool, emit func(entry) error) error {
	e := s.header
	if s.open {
		e.text = text
	} else {
		var err error
		e, err = parseEntry(text)
		s.unknown = err != nil
		s.header = entry{time: e.time, stream: e.stream, partial: e.partial}
	}

	s.open = !last
	if s.unknown {
		return nil
	}

	e.partial = e.partial || !last
	return emit(e)
}
