package main

import (
	"os"
	"path/filepath"
	"testing"

	"observability-hub/volbackup/internal/repository"
)

// A reader without the lock sees only complete archives while a writer adds and removes
// archives.
func TestArchivesWhileOthersWrite(t *testing.T) {
	s := newStore(t)
	data := big(t, 1000, 0)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			m := &repository.Manifest{Volume: "v"}
			_, err := s.put(t.Context(), m, stream{data: data})
			if err == nil {
				err = s.Remove(m)
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
		all, err := s.Archives("v")
		if err != nil {
			t.Error(err)
		}
		for _, a := range all {
			if a.Err != nil {
				t.Errorf("%s: %v", a.ID, a.Err)
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

// An archive whose removal was interrupted by a kill is not listed.
func TestArchivesHalfRemoved(t *testing.T) {
	s := newStore(t)
	m := &repository.Manifest{Volume: "v"}
	if _, err := s.put(t.Context(), m, stream{data: big(t, 1000, 0)}); err != nil {
		t.Fatal(err)
	}
	dir := s.Dir("v")
	if err := os.Rename(filepath.Join(dir, m.ID+".json"), filepath.Join(dir, ".tmp-"+m.ID+".json.gone")); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Archives("v"); err != nil || len(all) != 0 {
		t.Errorf("archives = %v, %v; want none", all, err)
	}
}
