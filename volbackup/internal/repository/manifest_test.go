package repository

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() *Manifest {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	m := &Manifest{Version: 1, Volume: "v", ID: at.Format(IDLayout), SHA256: "00", StoredBytes: 1, Time: at, Finished: at,
		Bytes: 10240, Entries: 2, Content: "11", Consistency: Consistent, Labels: map[string]string{"a": "b\"\n"}, Tool: "volbackup devel"}
	m.File = m.fileName()
	return m
}

func TestManifest(t *testing.T) {
	m := sample()
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeManifest(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v; want %+v", got, err, m)
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if m, err := decodeManifest(b); err == nil {
			t.Fatalf("bit %d flipped: accepted as %+v\n%s", i, m, b)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for i := range b {
		if _, err := decodeManifest(b[:i]); err == nil {
			t.Fatalf("truncated at %d: accepted", i)
		}
	}
}

// A damaged manifest is not called one of another version, for which there would be another volbackup.
func TestManifestDamaged(t *testing.T) {
	good, err := sample().encode()
	if err != nil {
		t.Fatal(err)
	}
	odd, err := seal(map[string]any{"version": 1, "volume": 5})
	if err != nil {
		t.Fatal(err)
	}
	newer, err := seal(&Manifest{Version: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"cut":               {good[:len(good)/2], "does not match its own SHA-256"},
		"of another shape":  {odd, "manifest: json: "},
		"of a newer format": {newer, "manifest version 2 is not supported by this volbackup"},
	} {
		if m, err := decodeManifest(tc.content); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v; want %q", name, m, err, tc.want)
		}
	}
}

func FuzzManifest(f *testing.F) {
	b, err := sample().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(bytes.Clone(again)); err != nil {
			t.Errorf("%v\n%s", err, again)
		}
	})
}
