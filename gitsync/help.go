package main

import "observability-hub/lib/table"

// flagHelp says what each flag is for. It stands here and not in the tags of
// the flags, as kong parses every tag at every start.
const flagHelp = `
state-dir          Directory for repository, ledger and journal (default: $STATE_DIRECTORY, else for root that of the units, else ~/.local/state/gitops-sync).
repo               The Git repository.
ref                Branch, tag, full ref name or commit to follow (${default}).
path               Directory of the repository that is meant: systemd/, scripts/ and .gitsync.json are below it.
allow-rewind       Follow a branch that was rewritten or set back.
publish            Publish the whole tree as DIR/COMMIT, with the link DIR/current.
allowed-signers    Take only commits signed by a key in this file, as in ssh-keygen(1) ALLOWED SIGNERS.
gpg-home           Take only commits signed by an OpenPGP key in this GnuPG home.
timeout            Longest time for all conversation with the remote (${default}).
keep-trees         How many published trees to keep (${default}).
source             State directory of gitsync pull, if it has its own.
root               Work on the system in this directory, as systemctl --root does (${default}).
scripts-dir        Where scripts/ is deployed (${default}).
allow-prune        Remove all or most of what is deployed, if the commit wants it so.
health-window      How long changed units are watched before they count as good (${default}).
run-as             User of on-change commands (${default}).
on-change-timeout  Longest time for an on-change command (${default}).
for                Resume by itself after this time: 2h, 30m (default: until gitsync resume).
max-age            Fail if the last success of pull or apply is older than this: 1h.
` + table.Help
