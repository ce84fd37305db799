package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"time"

	"observability-hub/lib/statedir"
)

// stateFile holds the counters of the last run.
const stateFile = "counters"

// snapshot is the state that one run keeps for the next: the counters, the clocks
// when they were read, the mounts that hang, and when the spool was last sent.
type snapshot struct {
	bootID   string
	clock    clock // the wall clock is not kept, because rates do not use it
	counters counters
	hung     []hung
	sent     time.Time // with --flush-every: when a run last tried to send the spool; else zero
}

const stateHeader = "sysmetrics-counters 1"

// encode returns a snapshot as lines of text:
//
//	sysmetrics-counters 1
//	boot BOOT-ID MONOTONIC-NS BOOTTIME-NS
//	sent UNIX-MS
//	hung RETRY-NS FAILURES "DEVICE" "TYPE" "POINT"
//	counter VALUE NAME
//	end
func (s *snapshot) encode() []byte {
	b := make([]byte, 0, 64*(len(s.counters)+4))
	b = fmt.Appendf(b, "%s\nboot %s %d %d\n", stateHeader, s.bootID, s.clock.monotonic, s.clock.boottime)
	if !s.sent.IsZero() {
		b = fmt.Appendf(b, "sent %d\n", s.sent.UnixMilli())
	}
	for _, h := range s.hung {
		b = fmt.Appendf(b, "hung %d %d %q %q %q\n", h.retry, h.failures, h.mount.device, h.mount.fstype, h.mount.point)
	}
	names := sortedKeys(s.counters)
	for _, name := range names {
		b = append(b, "counter "...)
		b = strconv.AppendUint(b, s.counters[name], 10)
		b = append(b, ' ')
		b = append(b, name...)
		b = append(b, '\n')
	}
	return append(b, "end\n"...)
}

// decodeState decodes the output of encode. It rejects everything else.
func decodeState(data []byte) (*snapshot, error) {
	body, whole := bytes.CutSuffix(data, []byte("end\n"))
	header, body, _ := bytes.Cut(body, []byte("\n"))
	if !whole || string(header) != stateHeader {
		return nil, errors.New("not a complete file of version 1")
	}
	s := &snapshot{counters: make(counters, bytes.Count(body, []byte("\n")))}
	for len(body) > 0 {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		if err := s.decodeLine(line); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
	}
	if s.bootID == "" {
		return nil, errors.New("no boot line")
	}
	return s, nil
}

func (s *snapshot) decodeLine(line []byte) error {
	f := fields(line)
	kind, err := f.next()
	if err != nil {
		return err
	}
	switch string(kind) {
	case "counter":
		v, err := f.uint()
		if err != nil || len(f) < 2 {
			return fmt.Errorf("not a value and a name: %w", err)
		}
		s.counters[string(f[1:])] = v
		return nil
	case "boot":
		id, idErr := f.next()
		monotonic, monoErr := f.uint()
		boottime, bootErr := f.uint()
		err := errors.Join(idErr, monoErr, bootErr)
		if err != nil || len(f) > 0 || max(monotonic, boottime) > math.MaxInt64 {
			return fmt.Errorf("not a boot id and two clocks: %v", err)
		}
		s.bootID, s.clock = string(id), clock{monotonic: time.Duration(monotonic), boottime: time.Duration(boottime)}
		return nil
	case "sent":
		ms, err := f.uint()
		if err != nil || len(f) > 0 || ms > math.MaxInt64 {
			return fmt.Errorf("not a time: %v", err)
		}
		s.sent = time.UnixMilli(int64(ms))
		return nil
	case "hung":
		var h hung
		_, err := fmt.Sscanf(string(line), "hung %d %d %q %q %q", &h.retry, &h.failures, &h.mount.device, &h.mount.fstype, &h.mount.point)
		if err != nil || h.retry < 0 || h.failures < 0 {
			return fmt.Errorf("not a time, a number and a mount: %v", err)
		}
		s.hung = append(s.hung, h)
		return nil
	}
	return errors.New("unknown kind")
}

// loadState returns the previous snapshot. It returns nil and no error if there is
// none, or if the file is empty, as it can be after a power loss.
func loadState(dir *statedir.Dir) (*snapshot, error) {
	data, err := dir.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, nil
	}
	s, err := decodeState(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir.Join(stateFile), err)
	}
	return s, nil
}
