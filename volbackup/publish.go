package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// How an archive appears. Archive and manifest are written to temporary files
// and fsynced; then the archive is renamed, then the manifest, then the folder
// is fsynced. Killed before the first rename, nothing has appeared. Killed
// between the two, the archive is whole and its manifest waits in its temporary
// file: the next run renames it. So no final name ever holds half of anything.

// draft is an archive that has not appeared yet.
type draft struct {
	r *repository
	m *manifest
	f *os.File
}

// draft makes the volume's folder and the temporary file of an archive to be.
func (r *repository) draft(m *manifest) (*draft, error) {
	dir := r.folder(m.Volume)
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := errors.Join(handOver(r.dir, dir), syncFolder(r.dir)); err != nil {
			return nil, unwritable(err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, unwritable(err)
	}
	d := &draft{r: r, m: m}
	// Two backups of one millisecond, or a clock that was set back.
	for r.exists(m.Volume, m.ID) {
		m.Time = m.Time.Add(time.Millisecond)
		m.ID = m.Time.Format(idLayout)
	}
	m.File = m.fileName()
	return d, nil
}

func (r *repository) exists(volume, id string) bool {
	for _, ext := range []string{archiveExt, archiveExt + ageExt, manifestExt} {
		if _, err := os.Lstat(filepath.Join(r.folder(volume), id+ext)); err == nil {
			return true
		}
	}
	return false
}

func (d *draft) temp(name string) string {
	return filepath.Join(d.r.folder(d.m.Volume), tempPrefix+name)
}

// create opens the temporary file for the archive's bytes.
func (d *draft) create() (*os.File, error) {
	f, err := createFile(d.temp(d.m.File))
	if err != nil {
		return nil, unwritable(err)
	}
	d.f = f
	return f, nil
}

// link makes the temporary name a link to the file of an older archive with the
// same content, or a copy of it where the file system has no links.
func (d *draft) link(base *manifest) error {
	if d.f != nil { // compressed in vain
		d.f.Close()
		d.f = nil
		if err := os.Remove(d.temp(d.m.File)); err != nil {
			return unwritable(err)
		}
	}
	err := os.Link(d.r.path(base), d.temp(d.m.File))
	if err == nil {
		return nil
	}
	if full(err) {
		return unwritable(err)
	}
	from, err := os.Open(d.r.path(base))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.create()
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return unwritable(err)
	}
	return nil
}

// publish makes archive and manifest appear.
func (d *draft) publish() error {
	if err := d.finish(); err != nil {
		d.discard()
		return unwritable(err)
	}
	return nil
}

func (d *draft) finish() error {
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
	if err := writeSynced(d.temp(d.m.ID+manifestExt), b); err != nil {
		return err
	}
	if err := os.Rename(d.temp(d.m.File), d.r.path(d.m)); err != nil {
		return err
	}
	if err := os.Rename(d.temp(d.m.ID+manifestExt), filepath.Join(d.r.folder(d.m.Volume), d.m.ID+manifestExt)); err != nil {
		// An archive without a manifest would take its room for ever.
		return errors.Join(err, os.Remove(d.r.path(d.m)))
	}
	return syncFolder(d.r.folder(d.m.Volume))
}

// discard removes what has not appeared.
func (d *draft) discard() {
	if d.f != nil {
		d.f.Close() // its content is not wanted
		d.f = nil
	}
	_ = os.Remove(d.temp(d.m.File))
	_ = os.Remove(d.temp(d.m.ID + manifestExt))
	_ = os.Remove(d.r.folder(d.m.Volume)) // if it is empty: the first backup failed
}

// update replaces the manifest of an archive.
func (r *repository) update(m *manifest) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(r.folder(m.Volume), m.ID+manifestExt), b); err != nil {
		return unwritable(err)
	}
	return nil
}

// replace replaces a file by b, or leaves it as it is.
func replace(path string, b []byte) error {
	dir, base := filepath.Split(path)
	temp := filepath.Join(dir, tempPrefix+base)
	if err := writeSynced(temp, b); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncFolder(dir)
}

// mend finishes or removes what a killed run left, in all volumes. The caller
// has the lock.
func (r *repository) mend() error {
	volumes, err := r.volumes()
	if err != nil {
		return err
	}
	var wrong []error
	for _, v := range volumes {
		if err := r.mendVolume(v); err != nil {
			wrong = append(wrong, unwritable(err))
		}
	}
	return errors.Join(wrong...)
}

func (r *repository) mendVolume(volume string) error {
	dir := r.folder(volume)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	left := false
	for _, e := range entries {
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
		return syncFolder(dir)
	}
	return nil
}

// isOurs reports whether a temporary file is of this repository, by its name
// without the prefix: the folder may hold what others make.
func isOurs(temp string) bool {
	if temp == prefixesFile {
		return true
	}
	id, _, _ := strings.Cut(temp, "Z.")
	_, err := time.Parse(idLayout, id+"Z")
	return err == nil
}

// awaited reports whether the temporary manifest is all that an archive lacks.
func (r *repository) awaited(volume, id, path string) bool {
	if _, err := os.Lstat(filepath.Join(r.folder(volume), id+manifestExt)); err == nil {
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
	info, err := os.Lstat(r.path(m))
	return err == nil && info.Size() == m.StoredBytes
}

func writeSynced(path string, b []byte) error {
	f, err := createFile(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// createFile opens a temporary file of the repository for writing. It follows no
// link: root may be the one who writes where another user could make one.
func createFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := handOver(filepath.Dir(path), path); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

// handOver gives what root has made to the owner of the folder that it is in:
// the next run of the service must be able to read and to replace it.
func handOver(dir, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// syncFolder makes renames, links and removals in a folder durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some network file systems have no fsync of a folder
	}
	if err != nil {
		err = fmt.Errorf("fsync %s: %w", dir, err)
	}
	return errors.Join(err, f.Close())
}
