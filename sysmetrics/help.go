package main

// flagHelp says what each flag is for. It stands here and not in the tags of
// the flags, as kong parses every tag at every start.
const flagHelp = `
state-dir           Folder for counters and spool (default: $STATE_DIRECTORY, else ~/.local/state/system-metrics).
spool-max           Size of the spool; beyond it the oldest records are dropped (${default} MiB).
timeout             Longest time for all work on the database (${default}).
flush               Insert the records, and what the spool holds, instead of printing them.
interval            Take the rates over a fresh window of this length, by sampling twice.
host                Host name to record (default: the kernel's).
interfaces          Only these interfaces count.
interfaces-exclude  Interfaces that do not count (${default}: what the kernel says is virtual).
disks               Only these block devices count.
disks-exclude       Block devices that do not count (${default}).
mounts              Only these mount points count, whatever their type.
mounts-exclude      Mount points that do not count (${default}).
rootfs              Take the host that is mounted here: its mounts, proc, sys and etc (for a container).
fs-types            File system types that count although they are pseudo, image, FUSE or network ones (nfs4, fuse.sshfs).
keep                Keep the rows of this last time: 90d, 12w, 36h.
`
