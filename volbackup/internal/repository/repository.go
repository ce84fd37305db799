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

// Repository is a directory with one subdirectory for each volume. It holds the
// archives, ID.tar.zst or ID.tar.zst.age, and their manifests, ID.json.
//
// Files whose names begin with a dot are temporary, except the inventory.
type Repository struct {
	Root string
	lock *statedir.Dir // nil while the repository is only read
}

const (
	// IDLayout is the format of an archive's time in its name. It has no colons,
	// because scp, tar and rsync take the text before a colon for a host.
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

// Claim locks the repository for writing, and creates it if it is missing.
func (r *Repository) Claim(ctx context.Context) error {
	_, err := os.Stat(r.Root)
	isNew := errors.Is(err, fs.ErrNotExist)
	lock, err := statedir.Open(ctx, r.Root, 0)
	if err == nil && isNew {
		err = openUp(r.Root)
	}
	if err != nil {
		return r.lockError(err)
	}
	r.lock = lock
	return nil
}

// ClaimExisting locks a repository that must exist.
func (r *Repository) ClaimExisting(ctx context.Context) error {
	if _, err := os.Stat(r.Root); errors.Is(err, fs.ErrNotExist) {
		return Missing(err)
	} else if err != nil {
		return unreadable(err)
	}
	return r.Claim(ctx)
}

// lockError converts an error of statedir to one about the repository.
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
	hint := "pass --repo DIR, a directory that the user of this run can write to"
	if e, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrPermission) {
		hint = "run it as the owner of the repository, or as root: namei -l " + e.Path + " shows the owners and modes"
	}
	if Full(err) {
		hint = "make room on that file system; the existing backups are unchanged"
	}
	return sysexits.New(sysexits.CantCreate, "repository_unwritable", fmt.Errorf("repository: %w", err)).WithHint(hint)
}

// Full reports whether an error means that the disk or the quota is full.
func Full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// CheckVolume rejects a name that is not valid for a Docker volume, because the name
// becomes the name of a directory.
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
	return sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is not a valid volume name", name)).
		WithHint("a volume name consists of letters, digits, _ . and -, and begins with a letter or digit; manage_volume.sh list shows the volumes that exist")
}

// ParseArchive splits VOLUME[@ID].
func ParseArchive(arg string) (volume, id string, err error) {
	volume, id, hasID := strings.Cut(arg, "@")
	if err := CheckVolume(volume); err != nil {
		return "", "", err
	}
	if hasID && (id == "" || strings.ContainsAny(id, "/\x00") || strings.HasPrefix(id, ".")) {
		return "", "", sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%q is not a valid archive id", id)).
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

// unreadable returns the error for a part of the repository that exists but cannot be
// read.
func unreadable(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return sysexits.New(sysexits.Failed, "failed", fmt.Errorf("repository: %w", err)).
			WithHint("a file is in the place of the directory: move it away")
	}
	return statedir.Unreadable(err)
}

// Missing returns the error for a repository that does not exist or has no backup.
func Missing(err error) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("repository: %w", err)).
		WithHint("volbackup run makes the first backup; --repo or VOLBACKUP_REPO names the repository")
}

// Archive is one backup: its manifest, or the error of its manifest.
type Archive struct {
	*Manifest
	ID  string
	Err error // the manifest is damaged; Manifest is nil
}

// Archives returns the archives of a volume, oldest first. Archives with a damaged
// manifest are included. A volume without a directory has no archives.
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
		if errors.Is(a.Err, fs.ErrPermission) { // the archive may be good
			return nil, unreadable(a.Err)
		}
		all = append(all, a)
	}
	for _, e := range entries { // without a manifest an archive cannot be verified
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

// inTransit reports whether an archive that was listed without a manifest is being
// published or removed. This state lasts between two steps of another run, or until
// the next run repairs the files of a killed one. The order of the checks matters: if
// the other run makes a step between two checks, the later check finds the new state.
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

// made returns when the backup was made: the time in the manifest or, if that cannot
// be read, the time in the archive's name.
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
		return nil, fmt.Errorf("the manifest belongs to %s@%s", m.Volume, m.ID)
	}
	return m, nil
}

// maxManifest is larger than a manifest with as many labels as manage_volume.sh list
// prints.
const maxManifest = 1 << 20

// readSmall returns the content of a manifest or of the inventory. It rejects a pipe,
// which would block every command, and a huge file, which volbackup does not write.
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

// fileName returns the name of the archive's file.
func (m *Manifest) fileName() string {
	if len(m.Recipients) > 0 {
		return m.ID + archiveExt + ageExt
	}
	return m.ID + archiveExt
}

// Path returns the path of the archive's file.
func (r *Repository) Path(m *Manifest) string { return filepath.Join(r.Dir(m.Volume), m.File) }

// ClockError is how far a recorded time may be in the future and still count as past.
const ClockError = time.Minute

// Newest returns the newest archive that is not known to be damaged, nil if there is
// none. An archive with a time in the future was made while the clock was wrong. It is
// returned only if all archives are from the future.
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

// None returns the error for a volume without a backup.
func (r *Repository) None(volume string) error {
	return sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no backup in %s", volume, r.Root)).
		WithHint("volbackup list shows all backups; volbackup verify shows which are damaged")
}

// DamagedError returns the error for an archive that must not be used. It returns err
// itself if err already has an exit status, such as that of a full stdout, because then
// the archive is not the cause. An archive that this user may not read is not damaged.
func DamagedError(volume, id string, err error) error {
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return unreadable(err)
	}
	return sysexits.New(sysexits.DataErr, "archive_damaged", fmt.Errorf("%s@%s: %w", volume, id, err)).
		WithHint("volbackup verify " + volume + " shows which of its backups are good")
}
