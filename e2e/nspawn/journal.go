package nspawn

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Entry is one journal entry, by field name as in systemd.journal-fields(7). If a field occurs several times, it holds the
// last value.
type Entry map[string]string

// readJournal reads the output of journalctl --output=json --all.
func readJournal(path string) ([]Entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var entries []Entry
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			entry, err := parseEntry(line)
			if err != nil {
				return nil, fmt.Errorf("%s: entry %d: %w", path, len(entries)+1, err)
			}
			entries = append(entries, entry)
		}
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func parseEntry(line []byte) (Entry, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, err
	}
	entry := make(Entry, len(fields))
	for name, raw := range fields {
		value, err := fieldValue(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		entry[name] = value
	}
	return entry, nil
}

// fieldValue reads one field. It is a string; an array of numbers, which are the bytes of a value that is not UTF-8; or an
// array of these, for a field that occurs several times.
func fieldValue(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	// Not []byte, which encoding/json would read as base64.
	var numbers []uint16
	if json.Unmarshal(raw, &numbers) == nil {
		bytes := make([]byte, len(numbers))
		for i, n := range numbers {
			bytes[i] = byte(n)
		}
		return string(bytes), nil
	}
	var several []json.RawMessage
	if err := json.Unmarshal(raw, &several); err != nil || len(several) == 0 {
		return "", fmt.Errorf("neither text nor bytes: %s", raw)
	}
	return fieldValue(several[len(several)-1])
}
