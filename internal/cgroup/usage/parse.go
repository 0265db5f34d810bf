package usage

import (
	"bytes"
	"iter"
	"strconv"
)

// The functions below allocate nothing: a node has some thousand of these files, which are read each time
// that somebody asks for statistics.

// number parses a decimal number, which a line feed may follow. What is not one, such as "max", is 0.
func number(text []byte) uint64 {
	var n uint64
	for _, c := range bytes.TrimSuffix(text, []byte("\n")) {
		if c < '0' || c > '9' || n > (1<<64-1-9)/10 {
			return 0
		}
		n = 10*n + uint64(c-'0')
	}
	return n
}

// bound parses a limit; nil for "max" and for a file that is not there.
func bound(text []byte) *uint64 {
	if len(text) == 0 || text[0] < '0' || text[0] > '9' {
		return nil
	}
	n := number(text)
	return &n
}

// least returns the lower one of two limits, of which nil is none.
func least(a, b *uint64) *uint64 {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

// fraction parses a decimal fraction such as "12.34"; 0 if it is not one.
func fraction(text []byte) float64 {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0
	}
	return f
}

// lines yields the first word of each line and what follows it.
func lines(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, rest []byte) bool) {
		for len(text) > 0 {
			var line []byte
			line, text, _ = cut(text, '\n')
			key, rest, _ := cut(line, ' ')
			if !yield(key, rest) {
				return
			}
		}
	}
}

// pairs yields the names and values of "NAME=VALUE NAME=VALUE".
func pairs(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(text) > 0 {
			var pair []byte
			pair, text, _ = cut(text, ' ')
			name, value, _ := cut(pair, '=')
			if !yield(name, value) {
				return
			}
		}
	}
}

// valueOf returns the number after a key of a file of lines "KEY NUMBER"; 0 if it is not there.
func valueOf(text []byte, key string) uint64 {
	for k, value := range lines(text) {
		if string(k) == key {
			return number(value)
		}
	}
	return 0
}

// cut is bytes.Cut for one byte.
func cut(text []byte, separator byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(text, separator); i >= 0 {
		return text[:i], text[i+1:], true
	}
	return text, nil, false
}

// deviceNumber parses "MAJOR:MINOR".
func deviceNumber(text []byte) (major, minor uint32, ok bool) {
	left, right, found := cut(text, ':')
	if !found || !digits(left) || !digits(right) {
		return 0, 0, false
	}
	return uint32(number(left)), uint32(number(right)), true
}

// digits reports whether text is a number of at most nine digits.
func digits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(text) > 0 && len(text) < 10
}

// operation finds an operation by the kernel's name.
func operation(name []byte) (Operation, bool) {
	for op, known := range operationNames {
		if string(name) == known {
			return Operation(op), true
		}
	}
	return 0, false
}

// deviceOf returns the entry of a device, which it makes if it is not there.
func deviceOf(devices []Device, major, minor uint32) ([]Device, *Device) {
	for i := range devices {
		if devices[i].Major == major && devices[i].Minor == minor {
			return devices, &devices[i]
		}
	}
	devices = append(devices, Device{Major: major, Minor: minor})
	return devices, &devices[len(devices)-1]
}
