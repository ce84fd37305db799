package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func newRepository(t *testing.T) *Repository {
	t.Helper()
	r, err := New(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// publish publishes an archive of the volume v.
func publish(t *testing.T, r *Repository, at time.Time, content string) *Manifest {
	t.Helper()
	d, m := begin(t, r, at, content)
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	return m
}

// begin returns a draft of an archive of the volume v, with its content written.
func begin(t *testing.T, r *Repository, at time.Time, content string) (*Draft, *Manifest) {
	t.Helper()
	sum := sha256.Sum256([]byte(content))
	m := &Manifest{Version: ManifestVersion, Volume: "v", ID: at.Format(IDLayout), Time: at, Verified: at, StoredBytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	d, err := r.Draft(m)
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return d, m
}

// names returns the names of the files of the volume v.
func names(t *testing.T, r *Repository) []string {
	t.Helper()
	entries, err := os.ReadDir(r.Dir("v"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestPublish(t *testing.T) {
	r := newRepository(t)
	first := publish(t, r, day, "one")
	second := publish(t, r, day, "two") // in the same millisecond
	if first.ID == second.ID || !second.Time.After(first.Time) {
		t.Errorf("%s and %s", first.ID, second.ID)
	}
	if m, err := r.Find("v", ""); err != nil || m.ID != second.ID {
		t.Errorf("the newest is %v, %v", m, err)
	}
	if m, err := r.Find("v", first.ID); err != nil || m.SHA256 != first.SHA256 {
		t.Errorf("%v, %v", m, err)
	}
	for _, m := range []*Manifest{first, second} {
		if err := r.Check(t.Context(), m); err != nil {
			t.Error(err)
		}
		f, err := r.Open(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := r.Find("v", "nothing"); sysexits.Code(err) != sysexits.Failed {
		t.Errorf("an archive that does not exist: %v", err)
	}
	if _, err := r.Find("w", ""); sysexits.Code(err) != sysexits.Failed {
		t.Errorf("a volume without archives: %v", err)
	}
	if volumes, err := r.Volumes(); err != nil || !slices.Equal(volumes, []string{"v"}) {
		t.Errorf("volumes %v, %v", volumes, err)
	}
}

func TestDiscard(t *testing.T) {
	r := newRepository(t)
	d, _ := begin(t, r, day, "one")
	d.Discard()
	if _, err := os.Stat(r.Dir("v")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left %v", names(t, r))
	}
}

// If the manifest cannot be published, the archive is removed.
func TestPublishFails(t *testing.T) {
	r := newRepository(t)
	d, m := begin(t, r, day, "one")
	inTheWay := filepath.Join(r.Dir("v"), m.ID+manifestExt)
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("Publish = %v; want exit status 73", err)
	}
	if got := names(t, r); !slices.Equal(got, []string{m.ID + manifestExt}) {
		t.Errorf("files %q; want only those from before", got)
	}
}

// The archive of an unchanged volume is a link to the file of the archive before it. The
// end-to-end test no-links.txtar covers file systems where a link is not possible.
func TestLink(t *testing.T) {
	r := newRepository(t)
	base := publish(t, r, day, "content")
	link := func(at time.Time) (linked bool, m *Manifest, err error) {
		d, m := begin(t, r, at, "not needed")
		if linked, err = d.Link(base); err != nil {
			d.Discard()
			return linked, m, err
		}
		m.SHA256, m.StoredBytes = base.SHA256, base.StoredBytes
		return linked, m, d.Publish()
	}
	linked, m, err := link(day.Add(time.Hour))
	if err != nil || !linked {
		t.Fatalf("linked %v, %v", linked, err)
	}
	if err := r.Check(t.Context(), m); err != nil {
		t.Error(err)
	}
	if err := os.Remove(r.Path(base)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := link(day.Add(2 * time.Hour)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link to a missing file: %v", err)
	}
	for _, name := range names(t, r) {
		if strings.HasPrefix(name, tempPrefix) {
			t.Errorf("left %s", name)
		}
	}
}

// Files of a killed run are published or removed. Other files are kept.
func TestRepair(t *testing.T) {
	r := newRepository(t)
	whole := publish(t, r, day, "one")
	going := publish(t, r, day.Add(time.Hour), "two")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(r.Dir("v"), from), filepath.Join(r.Dir("v"), to)); err != nil {
			t.Fatal(err)
		}
	}
	move(whole.ID+manifestExt, tempPrefix+whole.ID+manifestExt)
	move(going.ID+manifestExt, tempPrefix+going.ID+manifestExt+goneExt)
	for _, name := range []string{"v/" + prefixesFile, "v/" + tempPrefix + prefixesFile, "v/" + tempPrefix + "20260101T000000.000Z" + archiveExt, tempPrefix + inventoryFile, "v/" + tempPrefix + "mine"} {
		if err := os.WriteFile(filepath.Join(r.Root, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := r.Archives("v"); err != nil || len(all) != 0 {
		t.Errorf("archives before Repair: %v, %v; want none", all, err)
	}
	if err := r.Repair(); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, r), []string{tempPrefix + "mine", whole.ID + manifestExt, whole.File}; !slices.Equal(got, want) {
		t.Errorf("left %q; want %q", got, want)
	}
	if entries, err := os.ReadDir(r.Root); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// What is left beside a manifest does not take its place.
func TestRepairKeepsManifests(t *testing.T) {
	r := newRepository(t)
	m := publish(t, r, day, "one")
	other := *m
	other.Labels = map[string]string{"of": "another run"}
	sealed, err := other.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"half": []byte("half"), "whole": sealed} {
		if err := os.WriteFile(filepath.Join(r.Dir("v"), tempPrefix+m.ID+manifestExt), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Repair(); err != nil {
			t.Fatal(err)
		}
		if got, want := names(t, r), []string{m.ID + manifestExt, m.File}; !slices.Equal(got, want) {
			t.Errorf("%s: left %q; want %q", name, got, want)
		}
		if all, err := r.Archives("v"); err != nil || len(all) != 1 || len(all[0].Labels) != 0 {
			t.Errorf("%s: archives %+v, %v; want the one that was there", name, all, err)
		}
	}
}

func TestRemove(t *testing.T) {
	r := newRepository(t)
	m := publish(t, r, day, "one")
	if err := r.Remove(m); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	if err := r.Remove(m); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("removed twice: %v", err)
	}
	if err := r.RemoveVolume("v"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.Dir("v")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory of the volume still exists")
	}
}

// Files of other programs beside the archives are not listed as good archives, and do not
// affect the archives.
func TestArchivesAmongOthers(t *testing.T) {
	r := newRepository(t)
	m := publish(t, r, day, "one")
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"x.json": "{}", "y.json": string(b), "alone.tar.zst": "x", ".hidden.json": "x", "note.txt": "x", "large.json": strings.Repeat("x", maxManifest+1)} {
		if err := os.WriteFile(filepath.Join(r.Dir("v"), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.Archives("v")
	if err != nil {
		t.Fatal(err)
	}
	wrong := map[string]bool{}
	for _, a := range all {
		wrong[a.ID] = a.Err != nil
	}
	if got := fmt.Sprint(wrong); got != fmt.Sprint(map[string]bool{m.ID: false, "x": true, "y": true, "alone": true, "large": true}) {
		t.Errorf("wrong: %v", got)
	}
	if _, err := r.Find("v", "x"); sysexits.Code(err) != sysexits.DataErr {
		t.Errorf("a damaged manifest: %v", err)
	}
}

// vfat and CIFS open the directory Data for the name data.
func TestSameName(t *testing.T) {
	r := newRepository(t)
	if err := os.Mkdir(r.Dir("Data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.sameName("data"); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("data beside Data: %v", err)
	}
	if err := r.sameName("Data"); err != nil {
		t.Error(err)
	}
}

func TestClaim(t *testing.T) {
	r := newRepository(t)
	again, err := New(r.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Claim(t.Context()); sysexits.Code(err) != sysexits.TempFail {
		t.Errorf("claimed twice: %v", err)
	}
	again.Root += "-nowhere"
	if err := again.ClaimExisting(t.Context()); sysexits.Code(err) != sysexits.Failed {
		t.Errorf("claimed a repository that does not exist: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again.Root = filepath.Join(file, "repo")
	if err := again.Claim(t.Context()); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("claimed below a file: %v", err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}

// A repository that cannot be read is not one without volumes.
func TestVolumesUnreadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRepository(t)
	r.Root = file
	if names, err := r.Volumes(); err == nil {
		t.Errorf("Volumes of a file = %q; want an error", names)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"grafana_data": true, "a": true, "A.b-c": true, "": false, ".": false, "..": false, "a/b": false,
		"-a": false, "a b": false, "a\n": false, "ä": false, strings.Repeat("a", 256): false} {
		if err := CheckVolume(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, arg := range []string{"v@../x", "v@a/b", "v@.tmp-x", "/v", "@x"} {
		if _, _, err := ParseArchive(arg); err == nil {
			t.Errorf("%q is accepted", arg)
		}
	}
}
