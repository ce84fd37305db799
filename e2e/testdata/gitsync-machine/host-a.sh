# shellcheck shell=bash disable=SC2154,SC2086 # host.sh sets the variables; no name has a space
# A. A unit that failed before the commit does not count against it.

A1_a_oneshot_that_failed_before_gets_its_fix() {
  unit a1-job.service <<<$'[Service]\nType=oneshot\nExecStart=false'
  deploy
  no systemctl start a1-job.service
  unit a1-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  deploy
  applied "$(newest)"
  await is a1-job.service Result success
  inactive a1-job.service
  settled
}

A2_a_crash_loop_gets_its_fix() {
  unit a2-loop.service <<<$'[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=sleep 100000\nRestart=always\nRestartSec=30s\n[Install]\nWantedBy=multi-user.target'
  unit a2-loop.service.d/crash.conf <<<$'[Service]\nExecStart=\nExecStart=sh -c "test ! -e /run/a2-crash && exec sleep 100000"'
  deploy
  touch /run/a2-crash
  systemctl kill --signal=KILL a2-loop.service
  await is a2-loop.service SubState auto-restart
  unit a2-loop.service.d/crash.conf <<<$'[Service]\nExecStart=\nExecStart=sleep 200000'
  deploy
  runs a2-loop.service 'sleep 200000'
  settled
}

# The unit is in a restart loop already when its fix, which is slow, arrives. The old loop must not count.
A3_a_crash_loop_with_many_restarts_gets_its_fix() {
  unit a3-loop.service <<<$'[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=sh -c "test ! -e /run/a3-crash && exec sleep 100000"\nRestart=on-failure\nRestartSec=100ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  touch /run/a3-crash
  systemctl kill --signal=KILL a3-loop.service
  await restarted 4
  unit a3-loop.service <<<$'[Service]\nExecStart=sleep 100000\nExecStartPre=sleep 1\nRestart=on-failure\nRestartSec=100ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a3-loop.service 'sleep 100000'
  settled
}
restarted() { (($(property a3-loop.service NRestarts) >= $1)); }

A4_rollback_by_hand_after_the_service_failed() {
  unit a4-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  local good bad
  good=$(newest)
  unit a4-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  bad=$(newest)
  systemctl kill --signal=SEGV a4-app.service
  await failed a4-app.service
  run 0 rollback
  runs a4-app.service 'sleep 100000'
  applied "$good"
  gitsync status --state-dir "$state" | jq -e --arg bad "$bad" '.quarantined == $bad' >/dev/null
  settled
  runs a4-app.service 'sleep 100000'
}

A5_rollback_by_hand_after_a_crash_loop() {
  unit a5-app.service <<<$'[Service]\nExecStart=sleep 100000\nRestart=always\nRestartSec=1h\n[Install]\nWantedBy=multi-user.target'
  deploy
  local good
  good=$(newest)
  unit a5-app.service <<<$'[Service]\nExecStart=sleep 200000\nRestart=always\nRestartSec=1h\n[Install]\nWantedBy=multi-user.target'
  deploy
  systemctl kill --signal=KILL a5-app.service
  await is a5-app.service SubState auto-restart
  run 0 rollback
  applied "$good"
  runs a5-app.service 'sleep 100000'
  settled
}

A6_a_crash_loop_goes_on_after_the_way_back() {
  unit a6-loop.service <<<$'[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=sh -c "test ! -e /run/a6-crash && exec sleep 100000"\nRestart=always\nRestartSec=500ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  touch /run/a6-crash
  systemctl kill --signal=KILL a6-loop.service
  await is a6-loop.service SubState auto-restart
  unit a6-loop.service.d/x.conf <<<$'[Service]\nNice=1'
  unit a6-probe.service <<<$'[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes'
  deploy 10
  absent $units/a6-probe.service
  # When the file that the unit waits for exists, the loop finds it.
  rm /run/a6-crash
  await active a6-loop.service
  settled
}

A7_start_limit_hit_before() {
  unit a7-app.service <<<$'[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n[Service]\nExecStart=sh -c "test ! -e /run/a7-crash && exec sleep 100000"\nRestart=always\nRestartSec=50ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  touch /run/a7-crash
  systemctl kill --signal=KILL a7-app.service
  await failed a7-app.service
  unit a7-app.service <<<$'[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n[Service]\nExecStart=sleep 100000\nRestart=always\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a7-app.service 'sleep 100000'
  settled
}

A8_a_failed_unit_is_mended_by_a_drop_in() {
  unit a8-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit a8-app.service.d/x.conf <<<$'[Service]\nNice=1'
  deploy
  systemctl kill --signal=SEGV a8-app.service
  await failed a8-app.service
  unit a8-app.service.d/x.conf <<<$'[Service]\nNice=2'
  deploy
  runs a8-app.service 'sleep 100000'
  is a8-app.service Nice 2
  settled
}

A9_a_notify_service_timed_out_before() {
  unit a9-app.service <<<$'[Service]\nType=notify\nNotifyAccess=all\nExecStart=sleep 100000\nTimeoutStartSec=300ms'
  deploy
  no systemctl start a9-app.service
  is a9-app.service Result timeout
  unit a9-app.service <<<$'[Service]\nExecStart=sleep 100000\nTimeoutStartSec=300ms'
  deploy
  runs a9-app.service 'sleep 100000'
  settled
}

A10_a_socket_that_failed_before() {
  unit a10-s.socket <<<$'[Socket]\nListenStream=/run/a10/taken\n[Install]\nWantedBy=sockets.target'
  unit a10-s.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  deploy
  active a10-s.socket
  systemctl stop a10-s.socket
  rm -rf /run/a10
  touch /run/a10 # prevents the creation of the socket
  no systemctl start a10-s.socket
  failed a10-s.socket
  unit a10-s.socket <<<$'[Socket]\nListenStream=/run/a10-other\n[Install]\nWantedBy=sockets.target'
  deploy
  active a10-s.socket
  settled
}

A11_a_path_unit_that_failed_before() {
  unit a11-p.path <<<$'[Path]\nPathExists=/run/a11-there\n[Install]\nWantedBy=multi-user.target'
  unit a11-p.service <<<$'[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n[Service]\nType=oneshot\nExecStart=true'
  deploy
  touch /run/a11-there # makes the path unit start the service again and again
  await failed a11-p.path
  unit a11-p.service <<<$'[Service]\nType=oneshot\nExecStart=rm -f /run/a11-there'
  deploy
  await absent /run/a11-there
  await active a11-p.path
  settled
}

A12_a_timer_whose_service_failed_before() {
  unit a12-t.timer <<<$'[Timer]\nOnCalendar=2099-01-01\n[Install]\nWantedBy=timers.target'
  unit a12-t.service <<<$'[Service]\nType=oneshot\nExecStart=false'
  deploy
  no systemctl start a12-t.service
  unit a12-t.timer <<<$'[Timer]\nOnCalendar=2098-01-01\n[Install]\nWantedBy=timers.target'
  deploy
  active a12-t.timer
  is a12-t.timer NextElapseUSecRealtime "$(date -d 2098-01-01 '+%a %Y-%m-%d %H:%M:%S %Z')"
  settled
}

A13_a_dependency_that_failed_before() {
  unit a13-dep.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sh -c "test ! -e /run/a13-broken"\n[Install]\nWantedBy=multi-user.target'
  unit a13-app.service <<<$'[Unit]\nRequires=a13-dep.service\nAfter=a13-dep.service\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  touch /run/a13-broken
  systemctl stop a13-dep.service
  no systemctl start a13-app.service
  failed a13-dep.service
  inactive a13-app.service
  unit a13-dep.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  deploy
  active a13-dep.service
  active a13-app.service
  settled
}

A14_a_failed_unit_that_the_commit_does_not_touch() {
  unit a14-old.service <<<$'[Service]\nType=oneshot\nExecStart=false'
  unit a14-other.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  no systemctl start a14-old.service
  no systemctl start --quiet a14-none.service
  systemd-run --quiet --unit=a14-foreign.service false || :
  await failed a14-foreign.service
  unit a14-other.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a14-other.service 'sleep 200000'
  settled
  run 0 rollback
  runs a14-other.service 'sleep 100000'
  failed a14-foreign.service
}

# The reverse: a unit that the commit breaks counts against it, whatever was broken before.
A15_a_new_failure_beside_an_old_one() {
  unit a15-old.service <<<$'[Service]\nType=oneshot\nExecStart=false'
  unit a15-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  local good
  good=$(newest)
  no systemctl start a15-old.service
  unit a15-old.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit a15-app.service <<<$'[Service]\nExecStart=sh -c "sleep 0.3; exit 3"\n[Install]\nWantedBy=multi-user.target'
  deploy 10
  applied "$good"
  runs a15-app.service 'sleep 100000'
  settled
}

# Every run starts an enabled service that has failed since. If it fails again, this does not count against a commit.
A16_healing_fails_and_the_next_commit_is_fine() {
  unit a16-app.service <<<$'[Service]\nExecStart=sh -c "test ! -e /run/a16-broken && exec sleep 100000"\n[Install]\nWantedBy=multi-user.target'
  deploy
  touch /run/a16-broken
  systemctl kill --signal=KILL a16-app.service
  await failed a16-app.service
  unit a16-new.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  active a16-new.service
  applied "$(newest)"
  rm /run/a16-broken
  run 0 sync
  active a16-app.service
  settled
}

A17_a_probe_that_failed_before_gets_its_fix() {
  unit a17-probe.service <<<$'[Service]\nType=oneshot\nExecStart=sh -c "test ! -e /run/a17-broken"\n[X-Gitsync]\nProbe=yes'
  deploy
  touch /run/a17-broken
  no systemctl start a17-probe.service
  unit a17-probe.service <<<$'[Service]\nType=oneshot\nExecStart=true\n[X-Gitsync]\nProbe=yes'
  deploy
  inactive a17-probe.service
  # A probe must succeed, whatever it did before.
  unit a17-probe.service <<<$'[Service]\nType=oneshot\nExecStart=sh -c "exit 7"\n[X-Gitsync]\nProbe=yes'
  deploy 10
  settled
}

A18_an_instance_that_failed_before() {
  unit a18-w@.service <<<$'[Service]\nExecStart=sh -c "test ! -e /run/a18-%i && exec sleep 100000"\n[Install]\nWantedBy=multi-user.target'
  unit a18.preset <<<'enable a18-w@.service one two'
  deploy
  touch /run/a18-one
  systemctl kill --signal=KILL a18-w@one.service
  await failed a18-w@one.service
  unit a18-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a18-w@one.service 'sleep 100000'
  runs a18-w@two.service 'sleep 100000'
  settled
}

# A running oneshot is not a failure, and is not interrupted.
A19_a_oneshot_at_work() {
  unit a19-job.service <<<$'[Service]\nType=oneshot\nTimeoutStartSec=5min\nExecStart=sleep 60'
  deploy
  systemctl start --no-block a19-job.service
  await is a19-job.service ActiveState activating
  local before
  before=$(pid a19-job.service)
  unit a19-job.service <<<$'[Service]\nType=oneshot\nTimeoutStartSec=5min\nExecStart=sleep 61'
  deploy
  [[ $(pid a19-job.service) == "$before" ]]
  is a19-job.service NeedDaemonReload no
  settled
  [[ $(pid a19-job.service) == "$before" ]]
}

A20_what_the_way_back_finds_failed_is_not_started() {
  unit a20-old.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit a20.preset <<<'disable a20-old.service'
  deploy
  systemctl start a20-old.service
  systemctl kill --signal=SEGV a20-old.service
  await failed a20-old.service
  local good
  good=$(newest)
  unit a20-probe.service <<<$'[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes'
  deploy 10
  applied "$good"
  failed a20-old.service
  settled
}

A21_socket_that_failed_with_its_service() {
  unit a21.socket <<<$'[Socket]\nListenFIFO=/run/a21.fifo\n[Install]\nWantedBy=sockets.target'
  unit a21.service <<<$'[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=false'
  deploy
  echo x | timeout 5 tee /run/a21.fifo >/dev/null || :
  await failed a21.socket
  unit a21.service <<<$'[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=sleep 200000'
  deploy
  active a21.socket
  runs a21.service 'sleep 200000'
  settled
}

A22_path_that_failed_with_its_service() {
  unit a22.path <<<$'[Path]\nPathExists=/run/a22-go\n[Install]\nWantedBy=paths.target'
  unit a22.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  deploy
  touch /run/a22-go
  await failed a22.path
  unit a22.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true'
  deploy
  await active a22.path
  active a22.service
  settled
}

A23_dependents_run_again_after_a_rollback() {
  vendor_unit a23-v.service <<<$'[Unit]\nBindsTo=a23-app.service\nAfter=a23-app.service\n[Service]\nExecStart=sleep 100000'
  unit a23-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit a23-b.service <<<$'[Unit]\nRequires=a23-app.service\nAfter=a23-app.service\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  systemctl start a23-v.service
  unit a23-app.service <<<$'[Service]\nExecStart=sh -c "sleep 0.3; exit 1"\n[Install]\nWantedBy=multi-user.target'
  window=2s deploy 10
  runs a23-app.service 'sleep 100000'
  runs a23-b.service 'sleep 100000'
  runs a23-v.service 'sleep 100000'
}

A24_a_start_that_hangs_gets_its_fix() {
  unit a24.service <<<$'[Service]\nType=notify\nTimeoutStartSec=infinity\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit a24-k.service <<<$'[Service]\nExecStart=true'
  mkdir -p /run/systemd/system/a24.service.d
  printf '[Service]\nType=simple\n' >/run/systemd/system/a24.service.d/50.conf
  deploy
  rm -r /run/systemd/system/a24.service.d
  systemctl daemon-reload
  systemctl restart --no-block a24.service
  await is a24.service ActiveState activating
  unit a24.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a24.service 'sleep 200000'
  settled
}

A25_a_oneshot_at_work_is_left_by_a_rollback() {
  unit a25-job.service <<<$'[Service]\nType=oneshot\nExecStart=sleep 100000'
  unit a25-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  systemctl start --no-block a25-job.service
  await is a25-job.service SubState start
  local before
  before=$(pid a25-job.service)
  unit a25-job.service <<<$'[Service]\nType=oneshot\nExecStart=sleep 200000'
  unit a25-app.service <<<$'[Service]\nExecStart=false\n[Install]\nWantedBy=multi-user.target'
  deploy 10
  runs a25-app.service 'sleep 100000'
  [[ $(pid a25-job.service) == "$before" ]]
  unit a25-app.service <<<$'[Service]\nExecStart=sleep 300000\n[Install]\nWantedBy=multi-user.target'
  deploy
  [[ $(pid a25-job.service) == "$before" ]]
}

A26_a_socket_pair_after_a_rollback() {
  unit a26.socket <<<$'[Socket]\nListenFIFO=/run/a26.fifo\n[Install]\nWantedBy=sockets.target'
  unit a26.service <<<$'[Service]\nExecStart=sleep 100000'
  deploy
  systemctl start a26.service
  unit a26.socket <<<$'[Socket]\nListenFIFO=/run/a26b.fifo\n[Install]\nWantedBy=sockets.target'
  unit a26.service <<<$'[Service]\nExecStart=false'
  deploy 10
  active a26.socket
  runs a26.service 'sleep 100000'
  [[ $(property a26.socket Listen) == *a26.fifo* ]]
}

A27_start_limit_hit_and_its_fix() {
  unit a27.service <<<$'[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=sleep 100000\nRestart=always\nRestartSec=100ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  mkdir -p /run/systemd/system/a27.service.d
  printf '[Service]\nExecStart=\nExecStart=false\n' >/run/systemd/system/a27.service.d/50.conf
  systemctl daemon-reload
  systemctl restart a27.service
  await failed a27.service
  is a27.service Result exit-code || is a27.service Result start-limit-hit
  rm -r /run/systemd/system/a27.service.d
  unit a27.service <<<$'[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart=sleep 200000\nRestart=always\nRestartSec=100ms\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs a27.service 'sleep 200000'
  settled
}
