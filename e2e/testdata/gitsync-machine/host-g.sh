# shellcheck shell=bash disable=SC2154,SC2086 # host.sh sets the variables; no name has a space
# G. Valid units are not refused.

# accepted checks that the repository is deployed and that nothing is left to do.
accepted() {
  deploy
  settled
}

G1_a_timer_whose_only_time_has_passed() {
  unit g1-boot.timer <<<$'[Timer]\nOnBootSec=1s\n[Install]\nWantedBy=timers.target'
  unit g1-start.timer <<<$'[Timer]\nOnStartupSec=1s\n[Install]\nWantedBy=timers.target'
  unit g1-active.timer <<<$'[Timer]\nOnActiveSec=1ms\n[Install]\nWantedBy=timers.target'
  local name
  for name in boot start active; do unit g1-$name.service <<<$'[Service]\nType=oneshot\nExecStart=true'; done
  accepted
  active g1-boot.timer
}

G2_a_calendar_that_has_passed_and_a_clock_that_changes() {
  unit g2-past.timer <<<$'[Timer]\nOnCalendar=2001-01-01\n[Install]\nWantedBy=timers.target'
  unit g2-clock.timer <<<$'[Timer]\nOnClockChange=yes\nOnTimezoneChange=yes\n[Install]\nWantedBy=timers.target'
  local name
  for name in past clock; do unit g2-$name.service <<<$'[Service]\nType=oneshot\nExecStart=true'; done
  accepted
}

# The timer counts from a start that only the timer itself would cause.
G3_a_timer_that_never_fires_is_refused() {
  unit g3-ok.service <<<$'[Service]\nExecStart=true'
  deploy
  unit g3-t.timer <<<$'[Timer]\nOnUnitActiveSec=1h\n[Install]\nWantedBy=timers.target'
  unit g3-t.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  push
  local status=0
  gitsync sync --state-dir "$state" --repo "$hub" --health-window 2s >/tmp/out 2>/tmp/err || status=$?
  [[ $status == 10 || $status == 65 ]]
  absent $units/g3-t.timer
  # The commit is quarantined, or refused at each run.
  [[ $status == 65 ]] || settled
}

G4_a_template_of_a_timer() {
  unit g4-t@.timer <<<$'[Timer]\nOnCalendar=%i\n[Install]\nWantedBy=timers.target'
  unit g4-t@.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit g4.preset <<<'enable g4-t@.timer daily'
  accepted
  active g4-t@daily.timer
}

G5_ways_to_write_a_program() {
  script g5-job <<<$'#!/bin/sh\nexit 0'
  local n=0 line
  while IFS= read -r line; do
    n=$((n + 1))
    printf '[Service]\nType=oneshot\nExecStart=%b\n[X-Gitsync]\nProbe=yes\n' "$line" | unit "g5-$n.service"
  done <<'LINES'
"/usr/local/bin/g5-job"
'/usr/local/bin/g5-job' arg
\\\n  /usr/local/bin/g5-job
\\\n# a comment\n; another\n  /usr/local/bin/g5-job \\\n  arg
-/usr/local/bin/g5-job
+/usr/local/bin/g5-job
!/usr/local/bin/g5-job
!!/usr/local/bin/g5-job
:/usr/local/bin/g5-job $HOME
@/usr/local/bin/g5-job other-name
-@/usr/local/bin/g5-job other-name
@-/usr/local/bin/g5-job other-name
-+:/usr/local/bin/g5-job
g5-job
"g5-job" "a b"
/usr/local/bin/../bin/g5-job
/usr/local/bin//g5-job
/bin/sh -c 'exit 0'
/bin/sh -c "exit 0" ; /usr/local/bin/g5-job
/usr/local/bin/g5-job 100%%
/usr/local/bin/g5\\x2djob
LINES
  [[ $n == 21 ]]
  accepted
}

G6_specifiers_in_the_program() {
  script g6-n <<<$'#!/bin/sh\nexit 0'
  cp "$hub/scripts/g6-n" "$hub/scripts/g6-n.service"
  cp "$hub/scripts/g6-n" "$hub/scripts/g6-w"
  cp "$hub/scripts/g6-n" "$hub/scripts/g6-w-one"
  unit g6-n.service <<<$'[Service]\nType=oneshot\nExecStart=/usr/local/bin/%N\nExecStart=/usr/local/bin/%n\nExecStart=/usr/local/bin/%p\n[X-Gitsync]\nProbe=yes'
  unit g6-w@.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/local/bin/%p\nExecStart=/usr/local/bin/%p-%i\nExecStart=/usr/local/bin/%p-%I\n[Install]\nWantedBy=multi-user.target'
  unit g6.preset <<<'enable g6-w@.service one'
  accepted
  active g6-w@one.service
}

G7_units_that_refuse_manual_starts_and_stops() {
  unit g7-a.service <<<$'[Unit]\nRefuseManualStart=yes\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit g7-b.service <<<$'[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  accepted
  unit g7-b.service <<<$'[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit g7-a.service <<<$'[Unit]\nRefuseManualStart=yes\n[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  accepted
  drop g7-b.service
  unit g7-c.service <<<$'[Service]\nExecStart=true'
  accepted
  absent $units/g7-b.service
}

# With HUB_TORTURE=1 it takes longer than three minutes.
G8_a_start_that_takes_long() {
  unit g8-slow.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=10min\nExecStart=sleep '"$([[ -n $torture ]] && echo 210 || echo 15)"$'\n[Install]\nWantedBy=multi-user.target'
  unit g8-notify.service <<<$'[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=1min\nExecStart=sh -c "sleep 5; systemd-notify --ready; exec sleep 100000"\n[Install]\nWantedBy=multi-user.target'
  deploy
  active g8-slow.service
  active g8-notify.service
  settled
}

G9_odd_names() {
  unit 'g9-a@b@.service' <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 'g9-w@.service' <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 'g9-w@x@y.service' <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 'g9-dash\x2dx.service' <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 'g9-w@dev-disk\x2dby.service.d/x.conf' <<<$'[Service]\nNice=2'
  unit 'g9-.service.d/x.conf' <<<$'[Service]\nNice=1'
  accepted
  active 'g9-w@x@y.service'
  active 'g9-dash\x2dx.service'
}

G10_odd_text() {
  printf '\xef\xbb\xbf[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\n' | unit g10-bom.service
  printf '[Service]\r\nExecStart=sleep 100000\r\n[Install]\r\nWantedBy=multi-user.target\r\n' | unit g10-crlf.service
  printf '[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target' | unit g10-no-newline.service
  printf '# c\n\n; c\n[Service]\nEnvironment=A=%s\nExecStart=sleep \\\n# in between\n  100000\n[Install]\nWantedBy = multi-user.target\n' "$(head -c 100000 /dev/zero | tr '\0' x)" | unit g10-long.service
  printf '[Service]\nExecStart=\nExecStart=sleep 100000\n[Unit]\nDescription=caf\xc3\xa9\n[Service]\nNice=1\n[Install]\nWantedBy=\nWantedBy=multi-user.target\n' | unit g10-twice.service
  printf '[X-Other]\nAnything=1\n[Service]\nX-Mine=1\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\n' | unit g10-x.service
  accepted
  local name
  for name in bom no-newline long twice x; do active g10-$name.service; done
}

G11_deprecated_keys_are_a_warning() {
  unit g11-a.service <<<$'[Service]\nExecStart=sleep 100000\nKillMode=none'
  unit g11-b.service <<<$'[Service]\nExecStart=sleep 100000\nStandardOutput=syslog\nStandardError=syslog+console'
  unit g11-c.service <<<$'[Service]\nType=forking\nPIDFile=/var/run/g11.pid\nExecStart=true'
  unit g11-d.service <<<$'[Service]\nExecStart=sleep 100000\nMemoryLimit=1G\nBlockIOWeight=500\nCPUShares=100'
  unit g11-e.socket <<<$'[Socket]\nListenStream=/var/run/g11-e\n'
  unit g11-e.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  deploy
  grep -q '"level":"WARN"' /tmp/err
  [[ -e $units/g11-d.service ]]
  settled
}

G12_unknown_keys_are_refused() {
  unit g12-ok.service <<<$'[Service]\nExecStart=true'
  deploy
  local line
  for line in Typo=1 ExecStrat=true Type=none; do
    unit g12-bad.service <<<$'[Service]\nExecStart=true\n'"$line"
    deploy 65
    absent $units/g12-bad.service
  done
  unit g12-bad.service <<<$'[Servise]\nExecStart=true'
  deploy 65
  # A key that no version of systemd knows yet.
  unit g12-bad.service <<<$'[Service]\nExecStart=true\nKeyOfTheFuture=yes'
  deploy 65
  absent $units/g12-bad.service
}

G13_a_key_that_the_older_systemd_does_not_know() {
  unit g13-app.service <<<$'[Service]\nExecStart=sleep 100000\nRestartSteps=3\nRestartMaxDelaySec=1min\n[Install]\nWantedBy=multi-user.target'
  if (($(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') < 254)); then
    deploy 65
    return
  fi
  accepted
  active g13-app.service
}

G14_documentation_and_references_that_are_not_here() {
  unit g14-app.service <<<$'[Unit]\nDocumentation=man:g14(8) https://example.org\nAfter=g14-none.service postgresql.service\nWants=g14-none.service\nOnFailure=g14-none@%n.service\n[Service]\nExecStart=sleep 100000\nEnvironmentFile=-/etc/g14\nUser=root\n[Install]\nWantedBy=multi-user.target'
  accepted
  active g14-app.service
}
