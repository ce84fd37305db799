package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Who reads without the lock sees whole archives, while others come and go.
func TestArchivesWhileOthersWrite(t *testing.T) {
	s := newStore(t)
	data := big(t, 1000, 0)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			m := &manifest{Volume: "v"}
			_, err := s.put(t.Context(), m, stream{data: data})
			if err == nil {
				err = s.remove(m)
			}
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if err != nil {
				<-stop
				done <- err
				return
			}
		}
	}()
	for range 20000 {
		all, err := s.archives("v")
		if err != nil {
			t.Error(err)
		}
		for _, a := range all {
			if a.err != nil {
				t.Errorf("%s: %v", a.id, a.err)
			}
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What a killed run had begun to remove is no archive any more.
func TestArchivesHalfRemoved(t *testing.T) {
	s := newStore(t)
	m := &manifest{Volume: "v"}
	if _, err := s.put(t.Context(), m, stream{data: big(t, 1000, 0)}); err != nil {
		t.Fatal(err)
	}
	dir := s.folder("v")
	if err := os.Rename(filepath.Join(dir, m.ID+manifestExt), filepath.Join(dir, tempPrefix+m.ID+manifestExt+goneExt)); err != nil {
		t.Fatal(err)
	}
	if all, err := s.archives("v"); err != nil || len(all) != 0 {
		t.Errorf("archives = %v, %v; want none", all, err)
	}
}
