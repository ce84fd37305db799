package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Manifest describes an archive. It is the file ID.json beside it.
type Manifest struct {
	Version     int               `json:"version"`
	Volume      string            `json:"volume"`
	ID          string            `json:"id"`
	File        string            `json:"file"`         // the archive's file name, as sha256sum --check needs it
	SHA256      string            `json:"sha256"`       // of the file's bytes
	StoredBytes int64             `json:"stored_bytes"` // the file's length
	Time        time.Time         `json:"time"`         // when reading the volume began
	Finished    time.Time         `json:"finished"`
	Bytes       int64             `json:"bytes"` // of the tar stream
	Entries     int64             `json:"entries"`
	Content     string            `json:"content_sha256"`        // of the tar stream
	Tree        string            `json:"tree_sha256,omitempty"` // of the volume's metadata; see export in manage_volume.sh(1)
	Consistency string            `json:"consistency"`
	LinkOf      string            `json:"link_of,omitempty"`    // the archive whose file this one shares
	Recipients  []string          `json:"recipients,omitempty"` // of age; none: not encrypted
	Labels      map[string]string `json:"labels,omitempty"`
	Driver      string            `json:"driver,omitempty"`
	Tool        string            `json:"tool"`
	Verified    time.Time         `json:"verified,omitzero"` // when the archive was stored, or last verified
	Damaged     string            `json:"damaged,omitempty"` // the error of the last verification
}

// ManifestVersion is the version of manifests that this package reads and writes.
const ManifestVersion = 1

// Consistency of an archive.
const (
	Consistent = "consistent"
	Changed    = "changed" // a file changed while it was read
	Killed     = "killed"  // a container did not stop in time and was killed
)

// checkKey is the beginning of the manifest's last line, the SHA-256 of all lines
// before it. With it a flipped bit in a manifest is detected, as in an archive.
const checkKey = `  "check": "`

// encode returns the content of the manifest's file.
func (m *Manifest) encode() ([]byte, error) {
	b, err := seal(m)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Volume, err)
	}
	return b, nil
}

// seal returns v as JSON, with the SHA-256 as the last line.
func seal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	b = append(bytes.TrimSuffix(b, []byte("\n}")), ",\n"...)
	sum := sha256.Sum256(b)
	return fmt.Appendf(b, "%s%x\"\n}\n", checkKey, sum), nil
}

// unseal is the reverse of seal. The error says what is damaged.
func unseal(b []byte, v any) error {
	tail := len(checkKey) + 2*sha256.Size + len("\"\n}\n")
	if len(b) < tail {
		return errors.New("too short for a manifest")
	}
	body, last := b[:len(b)-tail], string(b[len(b)-tail:])
	sum := sha256.Sum256(body)
	if last != checkKey+hex.EncodeToString(sum[:])+"\"\n}\n" {
		return errors.New("the manifest does not match its own SHA-256")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

// decodeManifest is the reverse of encode. The error says what is damaged.
func decodeManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if err := unseal(b, &m); err != nil {
		return nil, err
	}
	if m.Version != ManifestVersion {
		return nil, fmt.Errorf("manifest version %d is not supported by this volbackup", m.Version)
	}
	return &m, nil
}
