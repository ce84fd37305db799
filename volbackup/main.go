// Volbackup keeps backups of volumes: tar streams, compressed, checked and
// never replaced by something worse.
//
// Synopsis:
//
//	volbackup run [VOLUME... | -]
//	volbackup put VOLUME [-- COMMAND...]
//	volbackup cat VOLUME[@ID]
//	volbackup list [VOLUME...]
//	volbackup verify [--deep] [VOLUME[@ID]...]
//	volbackup restore VOLUME[@ID]
//	volbackup prune [VOLUME...]
//	volbackup status [--max-age D] [VOLUME...]
//
// manage_volume.sh is everything that touches Docker; volbackup is everything
// that touches backups. The repository is a directory of plain files, readable
// with tar and zstd alone. volbackup(1) is the manual.
package main

import (
	"os"
	"path/filepath"

	"observability-hub/lib/cli"
	"observability-hub/lib/statedir"
	"observability-hub/lib/table"
	"observability-hub/volbackup/internal/repository"
)

const (
	name   = "volbackup"
	family = "volume-backup" // the unit family: the service of every record
)

// repositoryFlags say where the backups are.
type repositoryFlags struct {
	Repo     string `placeholder:"DIR"`
	StateDir string `placeholder:"DIR"`
}

// open returns the repository.
func (f repositoryFlags) open() (*repository.Repository, error) {
	if f.Repo != "" {
		return repository.New(f.Repo)
	}
	dir, err := statedir.Resolve(f.StateDir, family)
	if err != nil {
		return nil, err
	}
	return repository.New(filepath.Join(dir, "repository"))
}

// stagingFlags say where there is room for a stream.
type stagingFlags struct {
	Staging string `placeholder:"DIR"`
}

// storeFlags say how an archive is stored.
type storeFlags struct {
	stagingFlags
	Recipient      []string `placeholder:"AGE1..."`
	RecipientsFile string   `placeholder:"FILE"`
}

// identityFlags say how an encrypted archive is read.
type identityFlags struct {
	Identity string `placeholder:"FILE"`
}

// flagHelp is the help of each flag: its name, then the text.
const flagHelp = `repo            The repository: a directory, made if it is missing (default: repository in --state-dir).
state-dir       Directory of the repository that is not named (default: $STATE_DIRECTORY, else ~/.local/state/volume-backup).
staging         Directory for volumes that are read before they are compressed (default: the repository).
recipient       Encrypt to this age recipient; may be given more than once.
recipients-file Encrypt to the age recipients in this file, one a line.
identity        File of age identities, for encrypted archives (default: the credential age_identity).
engine          What keeps the backups: folder (--repo) or restic (its own variables say where).
manage-volume   The program that reaches volumes (${default}).
include         Back up only volumes whose name matches this shell pattern; may be given more than once, or separated by commas.
exclude         Leave out volumes whose name matches this shell pattern; may be given more than once, or separated by commas.
anonymous       Also back up volumes that have no name, under the name of the container that uses them.
made            When the stream was made, such as 2024-05-31 or 2024-05-31T01:00:00Z (default: now).
retired         Instead: remove all backups of volumes that have been gone for so long: 90d.
timeout         Longest time for a volume (${default}).
reread          Read a volume to its end also when no file's inode and times say that it changed.
deep            Also decrypt, decompress and check every byte of the content.
max-age         Fail if a volume's newest verified backup is older than this: 26h, 8d, 2w.
keep-daily      Keep the newest backup of this many days (${default}).
keep-weekly     Keep the newest backup of this many weeks (${default}).
keep-monthly    Keep the newest backup of this many months (${default}).
stop            Stop containers that use the volume, and start them again afterwards.
dry-run         Print what would be removed and remove nothing.
` + table.Help

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is everything that can be said to the tool. The flags of a command are
// the fields of its struct.
func app() cli.App {
	return cli.App{
		Name:        name,
		Service:     family,
		Description: "Keep backups of Docker volumes in a directory: streamed, checked, compressed, never replaced by something worse.",
		Commands: []cli.Command{
			{Name: "run", Help: "Back up volumes: export, store, verify, prune.", Grammar: &runCmd{}},
			{Name: "put", Help: "Store a tar stream from stdin, or from a command, whose exit status then decides.", Grammar: &putCmd{}},
			{Name: "cat", Help: "Verify an archive, then write its tar stream to stdout.", Grammar: &catCmd{}},
			{Name: "list", Help: "Print one record for each archive.", Grammar: &listCmd{}},
			{Name: "verify", Help: "Read archives and compare them with their manifests.", Grammar: &verifyCmd{}},
			{Name: "restore", Help: "Verify an archive, then make it the content of its volume.", Grammar: &restoreCmd{}},
			{Name: "prune", Help: "Remove what is expired, of volumes whose newest archive proves good, or all of volumes that are gone.", Grammar: &pruneCmd{}},
			{Name: "status", Help: "Print the state of each volume and the age of its newest verified backup.", Grammar: &statusCmd{}},
		},
		Examples: `  manage_volume.sh export grafana_data | volbackup put grafana_data --repo /srv/backup
  volbackup list --repo /srv/backup | jq -r '[.volume, .id, .bytes] | @tsv'
  volbackup verify --deep --repo /srv/backup
  volbackup cat grafana_data --repo /srv/backup | tar -t
`,
		Flags: flagHelp,
	}
}
