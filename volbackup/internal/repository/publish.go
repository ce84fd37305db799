package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/durable"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// How an archive is published: archive and manifest are written to temporary files and
// fsynced. Then the archive is renamed, then the manifest, and then the directory is
// fsynced. After a kill before the first rename, nothing is published. After a kill
// between the two renames, the archive is complete, and the next run renames the
// temporary manifest. Therefore a final name never holds an incomplete file.

// Draft is an archive that is not published yet.
type Draft struct {
	r *Repository
	m *Manifest
	f *os.File
}

// Draft creates the volume's directory, if it is missing, and returns a draft with an
// unused ID.
func (r *Repository) Draft(m *Manifest) (*Draft, error) {
	dir := r.Dir(m.Volume)
	if err := makeDir(dir); err == nil {
		if err := durable.SyncDir(r.Root); err != nil {
			return nil, Unwritable(err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, Unwritable(err)
	} else if err := r.sameName(m.Volume); err != nil {
		return nil, err
	}
	d := &Draft{r: r, m: m}
	// The ID exists after two backups in one millisecond, or if the clock was set back.
	for r.exists(m.Volume, m.ID) {
		m.Time = m.Time.Add(time.Millisecond)
		m.ID = m.Time.Format(IDLayout)
	}
	m.File = m.fileName()
	return d, nil
}

// sameName rejects a directory that belongs to a volume with another name. vfat and CIFS
// do not distinguish Data from data, or drop a dot at the end of a name.
func (r *Repository) sameName(volume string) error {
	entries, err := os.ReadDir(r.Root)
	if err != nil {
		return unreadable(err)
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == volume }) {
		return sysexits.New(sysexits.CantCreate, "repository_unwritable", fmt.Errorf("repository: the file system treats the name of the directory %s and that of another volume as the same", r.Dir(volume))).
			WithHint("move the repository to a file system that distinguishes the names, such as ext4, or exclude one of the volumes")
	}
	return nil
}

func (r *Repository) exists(volume, id string) bool {
	for _, ext := range []string{archiveExt, archiveExt + ageExt, manifestExt} {
		if _, err := os.Lstat(filepath.Join(r.Dir(volume), id+ext)); err == nil {
			return true
		}
	}
	return false
}

func (d *Draft) temp(name string) string {
	return filepath.Join(d.r.Dir(d.m.Volume), tempPrefix+name)
}

// Create opens the temporary file for the archive's bytes.
func (d *Draft) Create() (*os.File, error) {
	f, err := durable.Create(d.temp(d.m.File))
	if err != nil {
		return nil, Unwritable(err)
	}
	if err := belong(f); err != nil {
		return nil, Unwritable(errors.Join(err, f.Close(), os.Remove(f.Name())))
	}
	d.f = f
	return f, nil
}

// Link makes the temporary file a hard link to the file of base, an archive that has the
// same content and was just verified. If a link is not possible, the temporary file is a
// copy: vfat and some network file systems have no hard links, the kernel can forbid a
// link to another user's file, and ext4 allows 65,000 links to a file.
func (d *Draft) Link(base *Manifest) (linked bool, err error) {
	if d.f != nil { // the stream was compressed, but is not needed
		d.f.Close()
		d.f = nil
		if err := os.Remove(d.temp(d.m.File)); err != nil {
			return false, Unwritable(err)
		}
	}
	err = os.Link(d.r.Path(base), d.temp(d.m.File))
	if err == nil {
		return true, nil
	}
	if Full(err) {
		return false, Unwritable(err)
	}
	from, err := os.Open(d.r.Path(base))
	if err != nil {
		return false, err
	}
	defer from.Close()
	to, err := d.Create()
	if err != nil {
		return false, err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), from); err != nil {
		return false, Unwritable(err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != base.SHA256 {
		return false, fmt.Errorf("%s changed while it was copied", base.File)
	}
	return false, nil
}

// Publish publishes archive and manifest.
func (d *Draft) Publish() error {
	if err := d.finish(); err != nil {
		d.Discard()
		return Unwritable(err)
	}
	return nil
}

func (d *Draft) finish() error {
	if d.f != nil {
		if err := d.f.Sync(); err != nil {
			return err
		}
		if err := d.f.Close(); err != nil {
			return err
		}
		d.f = nil
	}
	b, err := d.m.encode()
	if err != nil {
		return err
	}
	if err := durable.Write(d.temp(d.m.ID+manifestExt), b, publicly); err != nil {
		return err
	}
	if err := os.Rename(d.temp(d.m.File), d.r.Path(d.m)); err != nil {
		return err
	}
	if err := os.Rename(d.temp(d.m.ID+manifestExt), filepath.Join(d.r.Dir(d.m.Volume), d.m.ID+manifestExt)); err != nil {
		// An archive without a manifest would never be removed.
		return errors.Join(err, os.Remove(d.r.Path(d.m)))
	}
	return durable.SyncDir(d.r.Dir(d.m.Volume))
}

// Discard removes the files of a draft that is not published.
func (d *Draft) Discard() {
	if d.f != nil {
		d.f.Close() // an error does not matter, because the file is removed
		d.f = nil
	}
	_ = os.Remove(d.temp(d.m.File))
	_ = os.Remove(d.temp(d.m.ID + manifestExt))
	_ = os.Remove(d.r.Dir(d.m.Volume)) // succeeds only if it is empty, because the first backup failed
}

// Update replaces the manifest of an archive.
func (r *Repository) Update(m *Manifest) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(r.Dir(m.Volume), m.ID+manifestExt), b); err != nil {
		return Unwritable(err)
	}
	return nil
}

// replace replaces the content of a file by b. If it fails, the file is unchanged.
func replace(path string, b []byte) error {
	dir, base := filepath.Split(path)
	return durable.Replace(path, filepath.Join(dir, tempPrefix+base), b, publicly)
}

// goneExt marks the manifest of an archive that is being removed.
const goneExt = ".gone"

// Remove removes an archive from the repository. It first renames the manifest to a
// temporary name. If Remove is interrupted, that name tells the next run to complete it.
func (r *Repository) Remove(m *Manifest) error {
	dir := r.Dir(m.Volume)
	gone := filepath.Join(dir, tempPrefix+m.ID+manifestExt+goneExt)
	if err := durable.Rename(filepath.Join(dir, m.ID+manifestExt), gone); err != nil {
		return Unwritable(err)
	}
	if err := finishRemoval(dir, m.ID, gone); err != nil {
		return Unwritable(err)
	}
	return nil
}

// RemoveVolume removes the directory of a volume that has no archives. It keeps a
// directory that contains files of other programs.
func (r *Repository) RemoveVolume(volume string) error {
	if err := os.Remove(r.Dir(volume)); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return Unwritable(err)
	}
	return durable.SyncDir(r.Root)
}

// finishRemoval removes the archive whose manifest was renamed to gone.
func finishRemoval(dir, id, gone string) error {
	for _, name := range []string{id + archiveExt, id + archiveExt + ageExt} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.Remove(gone)
}

// removing returns the id of the archive if the temporary name marks one to be removed.
func removing(temp string) (id string, ok bool) {
	return strings.CutSuffix(temp, manifestExt+goneExt)
}

// prefixesFile is a cache that earlier versions kept beside the archives.
const prefixesFile = ".prefixes"

// Repair publishes or removes the files that a killed run left in the directories of all
// volumes. The caller holds the lock.
func (r *Repository) Repair() error {
	volumes, err := r.Volumes()
	if err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(r.Root, tempPrefix+inventoryFile)) // the next run writes a new inventory
	var wrong []error
	for _, v := range volumes {
		if err := r.repairVolume(v); err != nil {
			wrong = append(wrong, Unwritable(err))
		}
	}
	return errors.Join(wrong...)
}

func (r *Repository) repairVolume(volume string) error {
	dir := r.Dir(volume)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	left := false
	for _, e := range entries {
		if e.Name() == prefixesFile && e.Type().IsRegular() {
			left = true
			if err := os.Remove(filepath.Join(dir, prefixesFile)); err != nil {
				return err
			}
			continue
		}
		temp, found := strings.CutPrefix(e.Name(), tempPrefix)
		if !found || !e.Type().IsRegular() || !isOurs(temp) {
			continue
		}
		left = true
		path := filepath.Join(dir, e.Name())
		if id, ok := removing(temp); ok {
			if err := finishRemoval(dir, id, path); err != nil {
				return err
			}
			continue
		}
		if id, ok := strings.CutSuffix(temp, manifestExt); ok && r.awaited(volume, id, path) {
			if err := os.Rename(path, filepath.Join(dir, temp)); err != nil {
				return err
			}
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if left {
		return durable.SyncDir(dir)
	}
	return nil
}

// isOurs reports whether a temporary file belongs to this repository. temp is its name
// without the prefix. The directory can contain files of other programs.
func isOurs(temp string) bool {
	if temp == prefixesFile {
		return true
	}
	id, _, _ := strings.Cut(temp, "Z.")
	_, err := time.Parse(IDLayout, id+"Z")
	return err == nil
}

// awaited reports whether an archive is complete except that its manifest still has the
// temporary name.
func (r *Repository) awaited(volume, id, path string) bool {
	if _, err := os.Lstat(filepath.Join(r.Dir(volume), id+manifestExt)); err == nil {
		return false
	}
	b, err := readSmall(path)
	if err != nil {
		return false
	}
	m, err := decodeManifest(b)
	if err != nil || m.ID != id || m.Volume != volume {
		return false
	}
	info, err := os.Lstat(r.Path(m))
	return err == nil && info.Size() == m.StoredBytes
}

// makeDir creates a directory with the owner of its parent directory. It returns
// [fs.ErrExist] if the directory exists.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(statedir.Inherit(dir, filepath.Dir(dir)), openUp(dir))
}

// openUp lets the group enter a new directory if it may enter its parent directory, so
// that a monitor in the group can ask for the status. StateDirectoryMode= of the unit
// therefore decides for the whole repository.
func openUp(dir string) error {
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil || parent.Mode()&0o050 == 0 {
		return err
	}
	return os.Chmod(dir, 0o700|parent.Mode()&0o050)
}

// publicly calls [belong] for a manifest or the inventory. Every user who may enter the
// directory can read it. Only the owner can read an archive.
func publicly(f *os.File) error { return errors.Join(belong(f), f.Chmod(0o644)) }

// belong makes the owner of its directory the owner of a new file, because the next run
// of the service must be able to read and replace it.
func belong(f *os.File) error { return statedir.Inherit(f.Name(), filepath.Dir(f.Name())) }

// Unnamed creates a file without a name. If the file system does not support that, the
// file has a name for a moment.
func Unnamed(dir string) (*os.File, error) {
	const tmpfile = 0o20200000 // O_TMPFILE of open(2)
	if f, err := os.OpenFile(dir, os.O_RDWR|tmpfile, 0o600); err == nil {
		return f, nil
	}
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
