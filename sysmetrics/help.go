package main

// flagHelp is the help text of each flag. The texts are not in the struct tags
// because kong parses every tag at every start.
const flagHelp = `
state-dir           Directory for counters and spool (default: $STATE_DIRECTORY, else that of the unit, else ~/.local/state/system-metrics).
spool-max           Maximum size of the spool; when it is full, the oldest records are dropped (${default} MiB).
timeout             Maximum time for all work on the database (${default}).
flush               Insert the records, and those in the spool, instead of printing them.
flush-every         With --flush: send only once in this time, at a moment of this host; until then the records wait in the spool (10m).
interval            Sample twice, this far apart, and print the rates of the time between.
host                Host name to record (default: the kernel's).
interfaces          Report only these interfaces.
interfaces-exclude  Interfaces to ignore (${default}: those that the kernel reports as virtual).
disks               Report only these block devices.
disks-exclude       Block devices to ignore (${default}).
mounts              Report only these mount points, of any file system type.
mounts-exclude      Mount points to ignore (${default}).
rootfs              Sample the host whose root is mounted here: its mounts, proc, sys and etc (for a container).
fs-types            Also report these types, which may be pseudo, image, FUSE or network file systems (nfs4, fuse.sshfs).
keep                Age up to which rows are kept: 90d, 12w, 36h.
keep-hourly         Age up to which hourly means are kept (default: without limit).
rollup              Print the tables of hourly means too.
since               Age up to which hours are summed up (${default}).
`
