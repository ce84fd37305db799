package repository

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

// Repository is a directory with one directory for each volume, which holds
// archives and their manifests: ID.tar.zst or ID.tar.zst.age, and ID.json.
//
// Names that begin with a dot are work in progress, except the inventory.
type Repository struct {
	Root string
	lock *statedir.Dir // nil: only read
}

const (
	// idLayout is the time of an archive as its name: without colons, which scp,
	// tar and rsync take for a host.
	IDLayout    = "20060102T150405.000Z"
	archiveExt  = ".tar.zst"
	ageExt      = ".age"
	manifestExt = ".json"
	tempPrefix  = ".tmp-"
)

// New returns the repository in a directory, which need not exist.
func New(dir string) (*Repository, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Repository{Root: dir}, nil
}

// Claim locks the repository for writing, and makes it if it is missing.
func (r *Repository) Claim(ctx context.Context) error {
	lock, err := statedir.Open(ctx, r.Root, 0)
	if err != nil {
		return r.lockError(err)
	}
	r.lock = lock
	return nil
}

// ClaimExisting locks a repository that must exist.
func (r *Repository) ClaimExisting(ctx context.Context) error {
	if _, err := os.Stat(r.Root); err != nil {
		return Missing(err)
	}
	return r.Claim(ctx)
}

// lockError says of a repository what statedir says of a state directory.
func (r *Repository) lockError(err error) error {
	switch sysexits.Code(err) {
	case sysexits.TempFail:
		return sysexits.New(sysexits.TempFail, "locked", fmt.Errorf("lock %s: another run holds it", r.Root)).
			WithHint("wait for the other run to end; fuser -v " + r.Root + " shows which process holds it")
	case sysexits.CantCreate:
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			return Unwritable(e)
		}
	}
	return err
}

// Release unlocks the repository.
func (r *Repository) Release() error {
	if r.lock == nil {
		return nil
	}
	return r.lock.Close()
}

// Unwritable gives an error of writing to the repository its exit status and a hint.
func Unwritable(err error) error {
	hint := "give --repo a directory that the user of this run can write"
	if Full(err) {
		hint = "make room on that file system; the backups that were there are unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "repository_unwritable", fmt.Errorf("repository: %w", err)).WithHint(hint)
}

// Full reports whether an error says that there is no room.
func Full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// CheckVolume rejects what is not a valid name of a Docker volume, because the name
// becomes that of a directory.
func CheckVolume(name string) error {
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
	return sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is not the name of a volume", name)).
		WithHint("a volume's name has letters, digits, _ . and -, and begins with a letter or digit; manage_volume.sh list shows those that are there")
}

// ParseArchive splits VOLUME[@ID].
func ParseArchive(arg string) (volume, id string, err error) {
	volume, id, hasID := strings.Cut(arg, "@")
	if err := CheckVolume(volume); err != nil {
		return "", "", err
	}
	if hasID && (id == "" || strings.ContainsAny(id, "/\x00") || strings.HasPrefix(id, ".")) {
		return "", "", sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is not the id of an archive", id)).
			WithHint("volbackup list shows the ids")
	}
	return volume, id, nil
}

// Dir returns the directory of a volume.
func (r *Repository) Dir(volume string) string { return filepath.Join(r.Root, volume) }

// Volumes returns the names of the volumes that have a directory.
func (r *Repository) Volumes() ([]string, error) {
	entries, err := os.ReadDir(r.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Missing(err)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckVolume(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// unreadable is the error of a directory that is there.
func unreadable(err error) error {
	return sysexits.New(sysexits.Failed, "failed", fmt.Errorf("repository: %w", err)).
		WithHint("run as the owner of that directory, or as root; if it is none, move it away")
}

// Missing is the error of a repository that does not exist or has no backup.
func Missing(err error) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("repository: %w", err)).
		WithHint("volbackup run makes the first backup; --repo or VOLBACKUP_REPO says where")
}

// Archive is one backup: its manifest, or what is wrong with the manifest.
type Archive struct {
	*Manifest
	ID  string
	Err error // the manifest is unreadable or damaged; Manifest is nil
}

// Archives returns the archives of a volume, oldest first. Those with an
// unreadable manifest are included; a volume without a directory has none.
func (r *Repository) Archives(volume string) ([]Archive, error) {
	entries, err := os.ReadDir(r.Dir(volume))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(err)
	}
	var all []Archive
	has := map[string]bool{}
	for _, e := range entries {
		id, isManifest := strings.CutSuffix(e.Name(), manifestExt)
		if !isManifest || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		has[id] = true
		a := Archive{ID: id}
		a.Manifest, a.Err = r.readManifest(volume, id)
		if errors.Is(a.Err, fs.ErrNotExist) { // removed since it was listed
			continue
		}
		all = append(all, a)
	}
	for _, e := range entries { // an archive alone cannot be told from half of one
		id, isArchive := strings.CutSuffix(strings.TrimSuffix(e.Name(), ageExt), archiveExt)
		if isArchive && !strings.HasPrefix(id, ".") && !has[id] && !r.inTransit(volume, id, e.Name()) {
			all = append(all, Archive{ID: id, Err: errors.New("an archive without its manifest")})
		}
	}
	slices.SortStableFunc(all, func(a, b Archive) int {
		if c := a.made().Compare(b.made()); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

// inTransit reports whether an archive that was listed without a manifest is about
// to get it, or to go: for the moment between two steps of another run, or until
// the next one mends what a killed one left. Each question is asked before the
// step that makes the answer to it no, and the next one's yes.
func (r *Repository) inTransit(volume, id, file string) bool {
	dir := r.Dir(volume)
	if r.awaited(volume, id, filepath.Join(dir, tempPrefix+id+manifestExt)) {
		return true
	}
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	return there(id+manifestExt) || there(tempPrefix+id+manifestExt+goneExt) || !there(file)
}

// made returns when the backup was made: the recorded time or, if that cannot
// be read, the one in its name.
func (a Archive) made() time.Time {
	if a.Manifest != nil {
		return a.Time
	}
	t, err := time.Parse(IDLayout, a.ID)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (r *Repository) readManifest(volume, id string) (*Manifest, error) {
	b, err := readSmall(filepath.Join(r.Dir(volume), id+manifestExt))
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
func (m *Manifest) fileName() string {
	if len(m.Recipients) > 0 {
		return m.ID + archiveExt + ageExt
	}
	return m.ID + archiveExt
}

// Path returns where the archive's file is.
func (r *Repository) Path(m *Manifest) string { return filepath.Join(r.Dir(m.Volume), m.File) }

// ClockError is how far ahead of now a recorded time may be and still count as past.
const ClockError = time.Minute

// Newest returns the newest archive that is good as far as is known, nil if
// there is none. One from the future was made while the clock was wrong: it is
// the newest only if all are.
func Newest(all []Archive, now time.Time) *Manifest {
	var past, future *Manifest
	for _, a := range all {
		switch {
		case a.Manifest == nil || a.Damaged != "":
		case a.Time.After(now.Add(ClockError)):
			future = a.Manifest
		default:
			past = a.Manifest
		}
	}
	if past == nil {
		return future
	}
	return past
}

// Find returns the archive VOLUME@ID or, without an ID, the newest.
func (r *Repository) Find(volume, id string) (*Manifest, error) {
	all, err := r.Archives(volume)
	if err != nil {
		return nil, err
	}
	if id == "" {
		if m := Newest(all, time.Now()); m != nil {
			return m, nil
		}
		return nil, r.None(volume)
	}
	for _, a := range all {
		if a.ID != id {
			continue
		}
		if a.Err != nil {
			return nil, DamagedError(volume, id, a.Err)
		}
		return a.Manifest, nil
	}
	return nil, sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s@%s: no such backup in %s", volume, id, r.Root)).
		WithHint("volbackup list " + volume + " shows the ids")
}

// None is the error of a volume without a backup.
func (r *Repository) None(volume string) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no backup in %s", volume, r.Root)).
		WithHint("volbackup list shows what is there; volbackup verify says what is wrong with it")
}

// DamagedError is the error of an archive that must not be used. An error that has a
// status already, such as that of a full stdout, is not about the archive.
func DamagedError(volume, id string, err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err
	}
	return sysexits.New(sysexits.DataErr, "archive_damaged", fmt.Errorf("%s@%s: %w", volume, id, err)).
		WithHint("volbackup verify " + volume + " shows which of its backups are good")
}
