package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// repository is a folder with one folder for each volume, which holds archives
// and their manifests: ID.tar.zst or ID.tar.zst.age, and ID.json.
//
// Names that begin with a dot are work in progress and no part of it.
type repository struct {
	dir  string
	lock *statedir.Dir // nil: only read
}

const (
	// idLayout is the time of an archive as its name: without colons, which scp,
	// tar and rsync take for a host.
	idLayout    = "20060102T150405.000Z"
	archiveExt  = ".tar.zst"
	ageExt      = ".age"
	manifestExt = ".json"
	tempPrefix  = ".tmp-"
)

func newRepository(dir string) (*repository, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &repository{dir: dir}, nil
}

// claim locks the repository for writing, made if it is missing.
func (r *repository) claim(ctx context.Context) error {
	lock, err := statedir.Open(ctx, r.dir, 0)
	if err != nil {
		return r.lockError(err)
	}
	r.lock = lock
	return nil
}

// claimExisting does that for a command that has nothing to do in a new one.
func (r *repository) claimExisting(ctx context.Context) error {
	if _, err := os.Stat(r.dir); err != nil {
		return missing(err)
	}
	return r.claim(ctx)
}

// lockError says of a repository what statedir says of a state directory.
func (r *repository) lockError(err error) error {
	switch sysexits.Code(err) {
	case sysexits.TempFail:
		return sysexits.New(sysexits.TempFail, "locked", fmt.Errorf("lock %s: another run holds it", r.dir)).
			WithHint("wait for the other run to end; fuser -v shows who holds it")
	case sysexits.CantCreate:
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			return unwritable(e)
		}
	}
	return err
}

func (r *repository) release() error {
	if r.lock == nil {
		return nil
	}
	return r.lock.Close()
}

// unwritable gives an error of writing to the repository its exit status and a hint.
func unwritable(err error) error {
	hint := "give --repo a folder that the user of this run can write"
	if full(err) {
		hint = "make room on that file system; the backups that were there are unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "repository_unwritable", fmt.Errorf("repository: %w", err)).WithHint(hint)
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// checkVolume refuses what is no name of a Docker volume: it becomes a folder's name.
func checkVolume(name string) error {
	letter := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }
	for i, c := range name {
		if !letter(c) && (i == 0 || !strings.ContainsRune("_.-", c)) {
			return badVolume(name)
		}
	}
	if name == "" || len(name) > 255 {
		return badVolume(name)
	}
	return nil
}

func badVolume(name string) error {
	return sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is no name of a volume", name)).
		WithHint("a volume's name has letters, digits, _ . and -, and begins with a letter or digit; manage_volume.sh list shows those that are there")
}

// parseArchive splits VOLUME[@ID].
func parseArchive(arg string) (volume, id string, err error) {
	volume, id, hasID := strings.Cut(arg, "@")
	if err := checkVolume(volume); err != nil {
		return "", "", err
	}
	if hasID && (id == "" || strings.ContainsAny(id, "/\x00") || strings.HasPrefix(id, ".")) {
		return "", "", sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is no id of an archive", id)).
			WithHint("volbackup list shows the ids")
	}
	return volume, id, nil
}

// folder returns the folder of a volume.
func (r *repository) folder(volume string) string { return filepath.Join(r.dir, volume) }

// volumes returns the names of the volumes that have a folder.
func (r *repository) volumes() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(err)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && checkVolume(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// unreadable is the error of a folder that is there.
func unreadable(err error) error {
	return sysexits.New(sysexits.Failed, "failed", fmt.Errorf("repository: %w", err)).
		WithHint("run as the owner of that folder, or as root; if it is none, move it away")
}

func missing(err error) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("repository: %w", err)).
		WithHint("volbackup run makes the first backup; --repo or VOLBACKUP_REPO says where")
}

// archive is one backup: its manifest, or what is wrong with that.
type archive struct {
	*manifest
	id  string
	err error // the manifest is unreadable or damaged; manifest is nil
}

// archives returns the archives of a volume, oldest first. An error of one of
// them is in it; a volume without a folder has none.
func (r *repository) archives(volume string) ([]archive, error) {
	entries, err := os.ReadDir(r.folder(volume))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(err)
	}
	var all []archive
	has := map[string]bool{}
	for _, e := range entries {
		id, isManifest := strings.CutSuffix(e.Name(), manifestExt)
		if !isManifest || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		has[id] = true
		a := archive{id: id}
		a.manifest, a.err = r.readManifest(volume, id)
		if errors.Is(a.err, fs.ErrNotExist) { // removed since it was listed
			continue
		}
		all = append(all, a)
	}
	for _, e := range entries { // an archive alone cannot be told from half of one
		id, isArchive := strings.CutSuffix(strings.TrimSuffix(e.Name(), ageExt), archiveExt)
		if isArchive && !strings.HasPrefix(id, ".") && !has[id] && !r.inTransit(volume, id, e.Name()) {
			all = append(all, archive{id: id, err: errors.New("an archive without its manifest")})
		}
	}
	slices.SortStableFunc(all, func(a, b archive) int {
		if c := a.time().Compare(b.time()); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return all, nil
}

// inTransit reports whether an archive that was listed without a manifest is about
// to get it, or to go: for the moment between two steps of another run, or until
// the next one mends what a killed one left. Each question is asked before the
// step that makes the answer to it no, and the next one's yes.
func (r *repository) inTransit(volume, id, file string) bool {
	dir := r.folder(volume)
	if r.awaited(volume, id, filepath.Join(dir, tempPrefix+id+manifestExt)) {
		return true
	}
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	return there(id+manifestExt) || there(tempPrefix+id+manifestExt+goneExt) || !there(file)
}

// time returns when the backup was made: the recorded time or, if that cannot
// be read, the one in its name.
func (a archive) time() time.Time {
	if a.manifest != nil {
		return a.Time
	}
	t, err := time.Parse(idLayout, a.id)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (r *repository) readManifest(volume, id string) (*manifest, error) {
	b, err := readSmall(filepath.Join(r.folder(volume), id+manifestExt))
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	if m.Volume != volume || m.ID != id || m.File != m.fileName() {
		return nil, fmt.Errorf("the manifest is that of %s@%s", m.Volume, m.ID)
	}
	return m, nil
}

// maxManifest is longer than a manifest with all the labels that fit into a line.
const maxManifest = 1 << 20

// readSmall returns the content of a manifest or a like file. A pipe would keep
// every command waiting, and a huge file is none of ours.
func readSmall(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxManifest:
		return nil, fmt.Errorf("%s has %d bytes, too many for a manifest", path, info.Size())
	}
	return os.ReadFile(path)
}

// fileName returns the name that the archive's file has.
func (m *manifest) fileName() string {
	if len(m.Recipients) > 0 {
		return m.ID + archiveExt + ageExt
	}
	return m.ID + archiveExt
}

// path returns where the archive's file is.
func (r *repository) path(m *manifest) string { return filepath.Join(r.folder(m.Volume), m.File) }

// clockError is how far ahead of now a recorded time may be and still count as past.
const clockError = time.Minute

// newest returns the newest archive that is good as far as is known, nil if
// there is none. One from the future was made while the clock was wrong: it is
// the newest only if all are.
func newest(all []archive, now time.Time) *manifest {
	var past, future *manifest
	for _, a := range all {
		switch {
		case a.manifest == nil || a.Damaged != "":
		case a.Time.After(now.Add(clockError)):
			future = a.manifest
		default:
			past = a.manifest
		}
	}
	if past == nil {
		return future
	}
	return past
}

// find returns the archive VOLUME@ID or, without an ID, the newest.
func (r *repository) find(volume, id string) (*manifest, error) {
	all, err := r.archives(volume)
	if err != nil {
		return nil, err
	}
	if id == "" {
		if m := newest(all, time.Now()); m != nil {
			return m, nil
		}
		return nil, r.none(volume)
	}
	for _, a := range all {
		if a.id != id {
			continue
		}
		if a.err != nil {
			return nil, damaged(volume, id, a.err)
		}
		return a.manifest, nil
	}
	return nil, sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s@%s: no such backup in %s", volume, id, r.dir)).
		WithHint("volbackup list " + volume + " shows the ids")
}

// none is the error of a volume without a backup.
func (r *repository) none(volume string) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no backup in %s", volume, r.dir)).
		WithHint("volbackup list shows what is there; volbackup verify says what is wrong with it")
}

// damaged is the error of an archive that must not be used. An error that has a
// status already, such as that of a full stdout, is not about the archive.
func damaged(volume, id string, err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err
	}
	return sysexits.New(sysexits.DataErr, "archive_damaged", fmt.Errorf("%s@%s: %w", volume, id, err)).
		WithHint("volbackup verify " + volume + " shows which of its backups are good")
}
