// Volbackup keeps backups of Docker volumes as compressed and verified tar
// archives. It never overwrites a good archive.
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
// manage_volume.sh does everything that involves Docker. volbackup does
// everything that involves backups. The repository is a directory of plain
// files, which tar and zstd can read. volbackup(1) is the manual.
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

// repositoryFlags name the repository.
type repositoryFlags struct {
	Repo     string `placeholder:"DIR"`
	StateDir string `placeholder:"DIR"`
}

// open returns the repository. existing is true for a command that does not create one:
// such a command uses the unit's repository if this user has none.
func (f repositoryFlags) open(existing bool) (*repository.Repository, error) {
	if f.Repo != "" {
		return repository.New(f.Repo)
	}
	resolve := statedir.Resolve
	if existing {
		resolve = statedir.ResolveExisting
	}
	dir, err := resolve(f.StateDir, family)
	if err != nil {
		return nil, err
	}
	return repository.New(filepath.Join(dir, "repository"))
}

// stagingFlags name the directory in which streams are staged.
type stagingFlags struct {
	Staging string `placeholder:"DIR"`
}

// storeFlags define how an archive is stored.
type storeFlags struct {
	stagingFlags
	Recipient      []string `placeholder:"AGE1..."`
	RecipientsFile string   `placeholder:"FILE"`
}

// identityFlags define how an encrypted archive is read.
type identityFlags struct {
	Identity string `placeholder:"FILE"`
}

// flagHelp is the help of each flag: its name, then the text.
const flagHelp = `repo            The repository: a directory, created if it is missing (default: repository in --state-dir).
state-dir       The state directory, for the default of --repo (default: $STATE_DIRECTORY, else ~/.local/state/volume-backup).
staging         Directory for volumes that are read before they are compressed (default: the repository).
recipient       Encrypt to this age recipient; can be repeated.
recipients-file Encrypt to the age recipients in this file, one per line.
identity        File of age identities, for encrypted archives (default: the credential age_identity).
engine          How backups are kept: folder (in --repo) or restic (its own variables name the repository).
manage-volume   The program that accesses volumes (${default}).
include         Back up only volumes whose name matches this shell pattern; can be repeated, or separated by commas.
exclude         Leave out volumes whose name matches this shell pattern; can be repeated, or separated by commas.
anonymous       Also back up volumes without a name, under the name of the container that uses them.
made            When the stream was made, such as 2024-05-31 or 2024-05-31T01:00:00Z (default: now).
retired         Instead, remove all backups of volumes that have not existed for this long: 90d.
timeout         Time limit for one volume (${default}).
reread          Read a volume even if the inodes and times of its files show no change.
deep            Also decrypt, decompress and check every byte of the content.
max-age         Fail if a volume's newest verified backup is older than this: 26h, 8d, 2w.
keep-daily      Keep the newest backup of this many days (${default}).
keep-weekly     Keep the newest backup of this many weeks (${default}).
keep-monthly    Keep the newest backup of this many months (${default}).
stop            Stop containers that use the volume, and start them again afterwards.
dry-run         Print what would be removed, and remove nothing.
` + table.Help

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app returns the command line of the tool. The flags of a command are the
// fields of its struct.
func app() cli.App {
	return cli.App{
		Name:        name,
		Service:     family,
		Description: "Keep backups of Docker volumes in a directory: streamed, verified and compressed. A good backup is never overwritten.",
		Commands: []cli.Command{
			{Name: "run", Help: "Back up volumes: export, store, verify, prune.", Grammar: &runCmd{}},
			{Name: "put", Help: "Store a tar stream from stdin, or from a command if it exits with status 0.", Grammar: &putCmd{}},
			{Name: "cat", Help: "Verify an archive, then write its tar stream to stdout.", Grammar: &catCmd{}},
			{Name: "list", Help: "Print one record for each archive.", Grammar: &listCmd{}},
			{Name: "verify", Help: "Read archives and compare them with their manifests.", Grammar: &verifyCmd{}},
			{Name: "restore", Help: "Verify an archive, then make it the content of its volume.", Grammar: &restoreCmd{}},
			{Name: "prune", Help: "Remove expired archives of volumes whose newest archive is good, or all archives of volumes that no longer exist.", Grammar: &pruneCmd{}},
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
