# shellcheck shell=bash disable=SC2154,SC2086,SC2016 # host.sh sets the variables; no name has a space
# H. Two repositories, other types of units, scripts, X-Gitsync, the state of root. B. Published trees.

H1_two_repositories_with_one_unit() {
  unit h1-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  local one=$hub first=$state
  hub=/srv/cases/h1/hub2 state=/srv/cases/h1/state2
  git init -q -b main "$hub"
  unit h1-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit h1-mine.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy 11
  said skip h1-app.service foreign
  active h1-mine.service
  runs h1-app.service 'sleep 100000'
  # Identical files are not shared either, because the first to prune a file would remove it for both.
  unit h1-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  push
  gitsync sync --state-dir "$state" --repo "$hub" --health-window 0s >/tmp/out 2>/tmp/err || [[ $? == 11 ]]
  drop h1-app.service
  deploy
  [[ -e $units/h1-app.service ]]
  runs h1-app.service 'sleep 100000'
  # The first is not affected. When it drops the unit, the second may deploy it.
  unit h1-app.service <<<$'[Service]\nExecStart=sleep 300000\n[Install]\nWantedBy=multi-user.target'
  deploy 11
  hub=$one state=$first
  settled
  drop h1-app.service
  unit h1-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  hub=/srv/cases/h1/hub2 state=/srv/cases/h1/state2
  run 0 sync
  runs h1-app.service 'sleep 300000'
  settled
}

H2_a_failed_unit_is_removed() {
  unit h2-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit h2-keep.service <<<$'[Service]\nExecStart=true'
  unit h2-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit h2.preset <<<'enable h2-w@.service one'
  deploy
  systemctl kill --signal=SEGV h2-app.service h2-w@one.service
  await failed h2-app.service
  await failed h2-w@one.service
  drop h2-app.service h2-w@.service h2.preset
  deploy 0 --allow-prune
  no grep h2- <(systemctl list-units --failed --plain --no-legend)
  is h2-app.service LoadState not-found
  settled
}

H3_a_script_of_a_running_service_changes() {
  script h3-run <<<$'#!/bin/sh\nexec sleep 100000'
  script h3-lib <<<$'# one'
  script h3-other <<<$'#!/bin/sh\n# one'
  unit h3-app.service <<<$'[Service]\nExecStart=/usr/local/bin/h3-run\n[Install]\nWantedBy=multi-user.target'
  unit h3-bare.service <<<$'[Service]\nExecStart=h3-run\n[Install]\nWantedBy=multi-user.target'
  unit h3-declared.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\n[X-Gitsync]\nRestartOnChange=/usr/local/bin/h3-lib'
  unit h3-idle.service <<<$'[Service]\nExecStart=h3-run'
  unit h3-quiet.service <<<$'[Service]\nExecStart=h3-run\n[Install]\nWantedBy=multi-user.target\n[X-Gitsync]\nRestart=no'
  deploy
  local app bare declared quiet
  app=$(pid h3-app.service) bare=$(pid h3-bare.service) declared=$(pid h3-declared.service) quiet=$(pid h3-quiet.service)
  script h3-other <<<$'#!/bin/sh\n# two'
  deploy
  [[ $(pid h3-app.service) == "$app" && $(pid h3-bare.service) == "$bare" && $(pid h3-declared.service) == "$declared" ]]
  script h3-lib <<<$'# two'
  deploy
  [[ $(pid h3-app.service) == "$app" && $(pid h3-declared.service) != "$declared" ]]
  declared=$(pid h3-declared.service)
  script h3-run <<<$'#!/bin/sh\nexec sleep 200000'
  deploy
  runs h3-app.service 'sleep 200000'
  runs h3-bare.service 'sleep 200000'
  [[ $(pid h3-declared.service) == "$declared" && $(pid h3-quiet.service) == "$quiet" ]]
  inactive h3-idle.service
  settled
  [[ $(pid h3-quiet.service) == "$quiet" ]]
}

H4_a_unit_that_a_change_does_not_restart() {
  cat >$vendor/h4-dockerd.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  systemctl daemon-reload
  systemctl enable --quiet --now h4-dockerd.service
  unit h4-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\n[X-Gitsync]\nRestart=no'
  deploy
  local app dockerd
  app=$(pid h4-app.service) dockerd=$(pid h4-dockerd.service)
  unit h4-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target\n[X-Gitsync]\nRestart=no'
  unit h4-dockerd.service.d/x.conf <<<$'[Service]\nNice=1\n[X-Gitsync]\nRestart=no'
  deploy
  [[ $(pid h4-app.service) == "$app" && $(pid h4-dockerd.service) == "$dockerd" ]]
  is h4-app.service NeedDaemonReload no
  settled
  unit h4-dockerd.service.d/x.conf <<<$'[Service]\nNice=2'
  deploy
  [[ $(pid h4-dockerd.service) != "$dockerd" && $(pid h4-app.service) == "$app" ]]
  settled
}

H5_a_slice() {
  unit h5-work.slice <<<$'[Slice]\nMemoryMax=1G'
  unit h5-app.service <<<$'[Service]\nSlice=h5-work.slice\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  is h5-app.service Slice h5-work.slice
  is h5-work.slice MemoryMax 1073741824
  local before
  before=$(pid h5-app.service)
  settled
  unit h5-work.slice <<<$'[Slice]\nMemoryMax=2G'
  deploy
  is h5-work.slice MemoryMax 2147483648
  [[ $(pid h5-app.service) == "$before" ]]
  settled
  # The slice is removed, although a process of another unit is in it.
  drop h5-work.slice
  deploy
  [[ $(pid h5-app.service) == "$before" ]]
  absent $units/h5-work.slice
  settled
}

H6_a_mount() {
  mkdir -p /srv/h6
  unit srv-h6.mount <<<$'[Mount]\nWhat=tmpfs\nWhere=/srv/h6\nType=tmpfs\nOptions=size=1m\n[Install]\nWantedBy=multi-user.target'
  unit h6-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  mountpoint --quiet /srv/h6
  enabled srv-h6.mount
  echo data >/srv/h6/file
  settled
  # A change does not unmount the file system.
  unit srv-h6.mount <<<$'[Mount]\nWhat=tmpfs\nWhere=/srv/h6\nType=tmpfs\nOptions=size=2m\n[Install]\nWantedBy=multi-user.target'
  deploy
  [[ $(cat /srv/h6/file) == data ]]
  settled
  # A mount that is in use does not block the removal.
  exec 9</srv/h6/file
  drop srv-h6.mount
  deploy
  absent $units/srv-h6.mount
  settled
  exec 9<&-
  umount --lazy /srv/h6 || :
}

H7_an_automount() {
  mkdir -p /srv/h7
  unit srv-h7.mount <<<$'[Mount]\nWhat=tmpfs\nWhere=/srv/h7\nType=tmpfs'
  unit srv-h7.automount <<<$'[Automount]\nWhere=/srv/h7\n[Install]\nWantedBy=multi-user.target'
  unit h7-keep.service <<<$'[Service]\nExecStart=true'
  if [[ ! -e /dev/autofs ]]; then
    # A container has no automounts: the units exist, but the automount does not start.
    sed -i '/WantedBy/d' "$hub/systemd/srv-h7.automount"
    deploy
    [[ -e $units/srv-h7.automount ]]
  else
    deploy
    active srv-h7.automount
  fi
  settled
  drop srv-h7.automount srv-h7.mount
  deploy
  absent $units/srv-h7.automount
  settled
}

# A swap file that cannot be used: the unit is deployed and not enabled.
H8_a_swap() {
  unit srv-h8.swap <<<$'[Swap]\nWhat=/srv/h8\n[Install]\nWantedBy=swap.target'
  unit h8.preset <<<'disable srv-h8.swap'
  unit h8-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  [[ -e $units/srv-h8.swap ]]
  enabled srv-h8.swap disabled
  settled
  drop srv-h8.swap
  deploy
  absent $units/srv-h8.swap
  settled
}

H9_a_mount_that_failed_before() {
  mkdir -p /srv/h9
  unit srv-h9.mount <<<$'[Mount]\nWhat=tmpfs\nWhere=/srv/h9\nType=tmpfs'
  deploy
  mkdir -p $units/srv-h9.mount.d
  printf '[Mount]\nType=no-such-type\n' >$units/srv-h9.mount.d/mine.conf
  systemctl daemon-reload
  no systemctl start srv-h9.mount
  failed srv-h9.mount
  rm -r $units/srv-h9.mount.d
  unit srv-h9.mount <<<$'[Mount]\nWhat=tmpfs\nWhere=/srv/h9\nType=tmpfs\nOptions=size=1m\n[Install]\nWantedBy=multi-user.target'
  deploy
  mountpoint --quiet /srv/h9
  settled
}

# generator installs a replacement for podman's generator. It makes NAME.service from each NAME.container.
generator() {
  mkdir -p /usr/lib/systemd/system-generators /etc/containers/systemd
  cat >/usr/lib/systemd/system-generators/podman-system-generator <<'G'
#!/bin/sh
for file in /etc/containers/systemd/*.container; do
  [ -e "$file" ] || continue
  name=$(basename "$file" .container)
  {
    echo '[Unit]'
    echo "SourcePath=$file"
    echo '[Service]'
    sed -n 's/^Image=/ExecStart=sleep /p' "$file"
  } >"$1/$name.service"
  if grep -q '^WantedBy=' "$file"; then
    mkdir -p "$1/multi-user.target.wants"
    ln -sf "../$name.service" "$1/multi-user.target.wants/$name.service"
  fi
done
for file in /etc/containers/systemd/*.volume; do
  [ -e "$file" ] || continue
  printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n' >"$1/$(basename "$file" .volume)-volume.service"
done
G
  chmod 755 /usr/lib/systemd/system-generators/podman-system-generator
  # In the directory where Debian has the program itself.
  mkdir -p /usr/libexec/podman
  printf '#!/bin/sh\nexec /usr/lib/systemd/system-generators/podman-system-generator "$3"\n' >/usr/libexec/podman/quadlet
  chmod 755 /usr/libexec/podman/quadlet
}

H10_quadlets() {
  generator
  unit h10-web.container <<<$'[Container]\nImage=100000\n[Install]\nWantedBy=multi-user.target'
  unit h10-data.volume <<<$'[Volume]'
  unit h10-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  cmp "$hub/systemd/h10-web.container" /etc/containers/systemd/h10-web.container
  absent $units/h10-web.container
  runs h10-web.service 'sleep 100000'
  settled
  unit h10-web.container <<<$'[Container]\nImage=200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs h10-web.service 'sleep 200000'
  settled
  # Drift is repaired.
  echo 'Image=300000' >/etc/containers/systemd/h10-web.container
  run 0 sync
  cmp "$hub/systemd/h10-web.container" /etc/containers/systemd/h10-web.container
  settled
  # A timer may start a unit that the generator makes.
  unit h10-t.timer <<<$'[Timer]\nOnCalendar=2099-01-01\nUnit=h10-web.service\n[Install]\nWantedBy=timers.target'
  deploy
  active h10-t.timer
  drop h10-t.timer h10-web.container h10-data.volume
  deploy 0 --allow-prune
  absent /etc/containers/systemd/h10-web.container
  is h10-web.service LoadState not-found
  inactive h10-web.service
  settled
}

H11_quadlets_without_the_generator() {
  unit h11-web.container <<<$'[Container]\nImage=100000\n[Install]\nWantedBy=multi-user.target'
  unit h11-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  said skip h11-web.container no-quadlet-generator
  absent /etc/containers/systemd/h11-web.container
  active h11-app.service
  settled
}

H12_a_quadlet_that_breaks_is_undone() {
  generator
  unit h12-web.container <<<$'[Container]\nImage=100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  unit h12-web.container <<<$'[Container]\nImage=not-a-number\n[Install]\nWantedBy=multi-user.target'
  deploy 10
  runs h12-web.service 'sleep 100000'
  settled
}

H13_files_that_are_passed_over_are_said_once() {
  unit h13-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit README.md <<<'text'
  unit h13-app.service.d/notes.txt <<<'text'
  unit h13.link.d/x.conf <<<$'[Link]'
  deploy
  jq -e -s '[.[] | select(.action == "skip")] | map(.path // .unit) | (any(test("README.md"))) and (any(test("notes.txt"))) and (any(test("h13.link")))' /tmp/out >/dev/null
  settled
}

# Commands that root runs by hand use the state directories of the units.
H14_root_by_hand_has_the_state_of_the_units() {
  unit h14-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  push
  local units_state=/var/lib/gitops-apply
  mkdir -p $units_state
  gitsync sync --state-dir $units_state --repo "$hub" --health-window 0s >/tmp/out 2>/tmp/err
  export HOME=/root
  unset STATE_DIRECTORY XDG_STATE_HOME
  gitsync hold >/tmp/out 2>/tmp/err
  [[ -e $units_state/hold.json && ! -e /root/.local/state/gitops-sync ]]
  gitsync status >/tmp/out 2>/tmp/err
  jq -e --arg c "$(newest)" '.applied == $c' /tmp/out >/dev/null
  gitsync resume >/tmp/out 2>/tmp/err
  absent $units_state/hold.json
  gitsync plan >/tmp/out 2>/tmp/err
  [[ ! -s /tmp/out ]]
  rm -r $units_state
  # Without a state directory the error says so.
  for command in status hold resume rollback plan; do
    local status=0
    gitsync $command --state-dir /srv/cases/h14/nowhere >/tmp/out 2>/tmp/err || status=$?
    [[ $status != 0 ]]
    grep -q nowhere /tmp/err
    absent /srv/cases/h14/nowhere
  done
}

H15_drift_is_healed_while_the_remote_is_down() {
  unit h15-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  mv "$hub" "$hub.away"
  echo Nice=3 >>$units/h15-app.service
  systemctl daemon-reload
  run 69 sync
  cmp "$hub.away/systemd/h15-app.service" $units/h15-app.service
  active h15-app.service
  systemctl stop h15-app.service
  run 69 sync
  active h15-app.service
  mv "$hub.away" "$hub"
  settled
}

H16_a_top_level_drop_in() {
  unit h16-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit h16-.service.d/x.conf <<<$'[Service]\nUMask=0027'
  deploy
  is h16-app.service UMask 0027
  unit h16-.service.d/x.conf <<<$'[Service]\nUMask=0077'
  deploy
  is h16-app.service UMask 0077
  settled
  drop h16-.service.d
  deploy
  is h16-app.service UMask 0022
  settled
}

# The example repository, unchanged.
H17_the_example() {
  cp -a /examples/. "$hub"
  printf '#!/bin/sh\n' >/usr/local/bin/openssl && chmod 755 /usr/local/bin/openssl
  install -d /etc/ssl/certs
  touch /etc/ssl/certs/h17.pem
  publish
  deploy
  said install certificate-check.timer new
  is certificate-check.service Result success
  active certificate-check.timer
  enabled certificate-check.timer
  journalctl --sync
  journalctl -o cat | grep -qx "certificate-check has changed"
  settled
  # A certificate that expires is reported in the journal.
  printf '#!/bin/sh\nexit 1\n' >/usr/local/bin/openssl
  systemctl start certificate-check.service
  journalctl --sync
  journalctl -u certificate-check.service -o cat | grep -qF '{"level":"WARN","msg":"certificate_expires","path":"/etc/ssl/certs/h17.pem"}'
  git -C "$hub" rm -q -r .
  deploy 0 --allow-prune
  absent $units/certificate-check.timer
  rm -r /usr/local/bin/openssl /etc/ssl/certs/h17.pem
}

publish() {
  export GITSYNC_PUBLISH=/srv/cases/$p/tree GITSYNC_RUN_AS=server
  install -d -o server -g server "$GITSYNC_PUBLISH"
}

B1_commands_run_in_a_path_that_stays() {
  publish
  install -d -o server /srv/cases/b1/ran
  unit b1-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  printf '{"on_change":[{"paths":["compose.yml"],"run":["/bin/sh","-c","pwd >>/srv/cases/b1/ran/seen; cat compose.yml >/srv/cases/b1/ran/compose.yml"]}]}' >"$hub/.gitsync.json"
  echo one >"$hub/compose.yml"
  deploy
  echo two >"$hub/compose.yml"
  deploy
  [[ $(sort -u /srv/cases/b1/ran/seen) == /srv/cases/b1/tree/current && $(wc -l </srv/cases/b1/ran/seen) == 2 ]]
  [[ $(cat /srv/cases/b1/ran/compose.yml) == two ]]
  settled
}

# A container that runs as root has written files beside the published files.
B2_data_of_others_in_a_published_tree() {
  publish
  chown -R server /srv/cases/b2
  local n as=(setpriv --reuid=server --regid=server --clear-groups env HOME=/srv/cases/b2)
  for n in 1 2 3 4 5; do
    unit b2-app.service <<<$'[Service]\nExecStart=sleep '"$n"
    chown -R server "$hub"
    "${as[@]}" git -C "$hub" add -A
    "${as[@]}" git -C "$hub" commit -q -m "$n"
    "${as[@]}" gitsync pull --state-dir "$state" --repo "$hub" --keep-trees 1 >/tmp/out 2>/tmp/err
    [[ $n != 1 ]] || {
      first=$(readlink -f "$GITSYNC_PUBLISH/current")
      install -d -o root -m 700 "$first/data"
      echo precious >"$first/data/db"
    }
  done
  cmp "$first/data/db" <<<precious
  [[ $(cat "$GITSYNC_PUBLISH/current/systemd/b2-app.service") == *'sleep 5' ]]
  # A run as root does not delete it either.
  gitsync pull --state-dir "$state" --repo "$hub" --keep-trees 1 >/tmp/out 2>/tmp/err || :
  cmp "$first/data/db" <<<precious
}

B3_words_of_a_command_are_its_own() {
  export GITSYNC_PUBLISH="/srv/cases/$p/tr ee%n\$x" GITSYNC_RUN_AS=server
  install -d -o server -g server "$GITSYNC_PUBLISH" /srv/cases/b3/ran
  unit b3.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  cat >"$hub/.gitsync.json" <<'J'
{"on_change":[{"paths":["."],"run":["/bin/sh","-c","X=1; printf '%s|' \"${X}\" \"$X\" \"$1\" \"$2\" \"$3\" >>/srv/cases/b3/ran/words; pwd >/srv/cases/b3/ran/pwd","sh","$HOME","%n","a\\x20b"]},
 {"paths":["conf*/*.y*ml"],"run":["/bin/sh","-c","echo x >>/srv/cases/b3/ran/glob"]}]}
J
  mkdir "$hub/config"
  echo 1 >"$hub/config/a.yaml"
  deploy
  [[ $(cat /srv/cases/b3/ran/words) == '1|1|$HOME|%n|a\x20b|' ]]
  [[ $(cat /srv/cases/b3/ran/pwd) == "$GITSYNC_PUBLISH/current" ]]
  settled
  echo x >"$hub/other"
  deploy
  [[ $(cat /srv/cases/b3/ran/words) == '1|1|$HOME|%n|a\x20b|1|1|$HOME|%n|a\x20b|' ]]
  [[ $(wc -l </srv/cases/b3/ran/glob) == 1 ]]
  echo 2 >"$hub/config/b.yml"
  deploy
  [[ $(wc -l </srv/cases/b3/ran/glob) == 2 ]]
}

H18_optional_program_and_search_path_restart() {
  printf '#!/bin/sh\nexec /bin/sleep 100000\n' | script h18-prog
  unit h18-a.service <<<$'[Service]\nExecStart=-/usr/local/bin/h18-prog\n[Install]\nWantedBy=multi-user.target'
  unit h18-b.service <<<$'[Service]\nExecSearchPath=/usr/local/bin\nExecStart=h18-prog\n[Install]\nWantedBy=multi-user.target'
  unit h18-c.service <<<$'[Service]\nExecStart=/usr/bin/env h18-prog\n[Install]\nWantedBy=multi-user.target\n[X-Gitsync]\nRestartOnChange=scripts/h18-prog'
  unit h18-w@.service <<<$'[Service]\nExecStart=/usr/local/bin/h18-%i\n[Install]\nWantedBy=multi-user.target'
  unit 10-h18.preset <<<$'enable h18-w@.service prog\nenable h18-*'
  deploy
  local u
  for u in a b c w@prog; do runs h18-$u.service '/bin/sleep 100000'; done
  printf '#!/bin/sh\nexec /bin/sleep 200000\n' | script h18-prog
  deploy
  for u in a b c w@prog; do runs h18-$u.service '/bin/sleep 200000'; done
  settled
}

H19_root_directory() {
  mkdir -p /srv/cases/h19/chroot/{usr,proc,sys,dev}
  mount --bind /usr /srv/cases/h19/chroot/usr
  ln -s usr/bin /srv/cases/h19/chroot/bin
  ln -s usr/lib /srv/cases/h19/chroot/lib
  ln -s usr/lib64 /srv/cases/h19/chroot/lib64
  unit h19.service <<<$'[Service]\nRootDirectory=/srv/cases/h19/chroot\nExecStart=/bin/sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit h19b.service <<<$'[Service]\nBindReadOnlyPaths=/usr/bin:/srv/h19\nExecStart=/srv/h19/sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  active h19.service
  active h19b.service
  settled
  systemctl stop h19.service h19b.service
  umount /srv/cases/h19/chroot/usr
}

H20_restart_no_goes_with_its_drop_in() {
  unit h20.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  unit h20.service.d/10.conf <<<$'[Service]\nNice=1\n[X-Gitsync]\nRestart=no'
  local before
  before=$(pid h20.service)
  deploy
  [[ $(pid h20.service) == "$before" ]]
  settled
  systemctl stop h20.service
  run 0 sync
  active h20.service
  drop h20.service.d
  before=$(pid h20.service)
  deploy
  [[ $(pid h20.service) != "$before" ]]
  settled
}
