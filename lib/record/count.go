package record

import (
	"bytes"
	"io"
)

// Count counts the complete lines of r, and its bytes.
func Count(r io.Reader) (lines, size int64, err error) {
	part := make([]byte, 256<<10)
	for {
		n, err := r.Read(part)
		lines += int64(bytes.Count(part[:n], []byte{'\n'}))
		size += int64(n)
		if err == io.EOF {
			return lines, size, nil
		}
		if err != nil {
			return lines, size, err
		}
	}
}
