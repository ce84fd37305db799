package main

import (
	"errors"
	"testing"
)

// A git that ends before it is asked says the same as one that ends when it is.
func TestObjectsOfNoStore(t *testing.T) {
	reader, err := makeReader(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o, err := openObjects(t.Context(), reader, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	// The end of its output is the end of git, which has closed its input before.
	if _, err := o.out.Peek(1); err == nil {
		t.Fatal("git answers without a store")
	}
	if _, _, err := o.read("0123456789012345678901234567890123456789", 1); !errors.Is(err, errCorrupt) {
		t.Errorf("read = %v; want %v", err, errCorrupt)
	}
}
