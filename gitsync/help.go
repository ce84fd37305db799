package main

import "observability-hub/lib/table"

// flagHelp says what each flag is for. It is here and not in the tags of the
// flags, because kong parses every tag at every start.
const flagHelp = `
state-dir          Directory of the repository, ledger and journal (default: $STATE_DIRECTORY, else for root the directory of the units, else ~/.local/state/gitops-sync).
repo               The Git repository.
ref                Branch, tag, full ref name or commit hash to follow (${default}).
path               Directory of the repository to deploy: systemd/, scripts/ and .gitsync.json are below it.
allow-rewind       Follow a branch that was rewritten or set back.
publish            Publish the whole tree as DIR/COMMIT, with the link DIR/current.
allowed-signers    Accept only commits signed by a key in this file, as in ssh-keygen(1) ALLOWED SIGNERS.
gpg-home           Accept only commits signed by an OpenPGP key in this GnuPG home.
timeout            Maximum time for all communication with the remote (${default}).
keep-trees         Number of published trees to keep (${default}).
stagger            Take a new commit within this time, at the turn of this host: 30m (default: at once).
turn               The turn of this host, from 0 (first) to 1 (last) (default: computed from its name).
stop-after         Do not take a commit that this many hosts have rolled back: 1 (default: do not ask the remote).
host               Name of this host in the roll-out (default: the host name).
source             State directory of gitsync pull, if it is not --state-dir.
root               Work on the system in this directory, as systemctl --root does (${default}).
scripts-dir        Directory that scripts/ is deployed to (${default}).
allow-prune        Remove all or most of what is deployed, if the commit requires it.
health-window      How long to watch changed units before the commit counts as healthy (${default}).
run-as             User that on-change commands run as (${default}).
on-change-timeout  Maximum time for one on-change command (${default}).
for                End the hold after this time: 2h, 30m (default: at gitsync resume).
max-age            Exit with 1 if the last successful pull or apply is older than this: 1h.
` + table.Help
