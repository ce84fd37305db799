# shellcheck shell=bash disable=SC2154,SC2086,SC2016 # host.sh sets the variables; no name has a space
# D. The administrator's and the vendor's side of the host.

vendor_unit() { cat >"$vendor/$1"; }

# vendor_daemon NAME makes a package's service, enabled and running.
vendor_daemon() {
  vendor_unit "$1" <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  systemctl daemon-reload
  systemctl enable --quiet --now "$1"
}

D1_an_override_of_a_vendor_unit_goes() {
  vendor_daemon d1-v.service
  unit d1-v.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit d1-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  runs d1-v.service 'sleep 200000'
  settled
  drop d1-v.service
  deploy
  absent $units/d1-v.service
  enabled d1-v.service
  runs d1-v.service 'sleep 100000'
  settled
}

D2_a_masked_service_and_its_timer() {
  systemctl mask --quiet d2-job.service
  unit d2-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d2-job.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit d2-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  said skip d2-job.service masked
  said skip d2-job.timer masked
  absent $units/d2-job.timer
  active d2-app.service
  settled
  systemctl unmask --quiet d2-job.service
  run 0 sync
  active d2-job.timer
  settled
}

D3_a_program_below_home_and_the_sandbox_of_the_unit() {
  mkdir -p /home/d3
  printf '#!/bin/sh\nexec sleep 100000\n' >/home/d3/prog
  chmod 755 /home/d3/prog
  unit d3-app.service <<<$'[Service]\nExecStart=/home/d3/prog\n[Install]\nWantedBy=multi-user.target'
  unit d3-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  active d3-app.service
  local sandbox
  for sandbox in ProtectHome=yes ProtectHome=tmpfs InaccessiblePaths=/home; do
    systemd-run --quiet --wait --pipe -p "$sandbox" gitsync sync --state-dir "$state" --repo "$hub" --health-window 0s >/tmp/out 2>/tmp/err
    no_action "a run with $sandbox"
    active d3-app.service
  done
  settled
}

# For a timer it is enough that systemd knows its service from another place.
elsewhere() {
  unit "$p-t.timer" <<<$'[Timer]\nOnCalendar=2099-01-01\nUnit='"$1"$'\n[Install]\nWantedBy=timers.target'
  deploy
  active "$p-t.timer"
  settled
}

D4_a_timer_for_a_generated_service() {
  mkdir -p /etc/systemd/system-generators
  printf '#!/bin/sh\nprintf "[Service]\\nType=oneshot\\nExecStart=true\\n" >"$1/d4-gen.service"\n' >/etc/systemd/system-generators/d4
  chmod 755 /etc/systemd/system-generators/d4
  systemctl daemon-reload
  elsewhere d4-gen.service
}

D5_a_timer_for_a_transient_service() {
  systemd-run --quiet --unit=d5-tr.service sleep 100000
  elsewhere d5-tr.service
}

D6_a_timer_for_a_vendor_service() {
  vendor_unit d6-v.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  elsewhere d6-v.service
}

D7_a_timer_for_a_service_in_run() {
  mkdir -p /run/systemd/system
  printf '[Service]\nType=oneshot\nExecStart=true\n' >/run/systemd/system/d7-run.service
  systemctl daemon-reload
  elsewhere d7-run.service
}

D8_a_timer_for_a_linked_service() {
  printf '[Service]\nType=oneshot\nExecStart=true\n' >/srv/cases/d8/d8-l.service
  systemctl link --quiet /srv/cases/d8/d8-l.service
  elsewhere d8-l.service
}

D9_a_timer_for_an_alias() {
  vendor_unit d9-real.service <<<$'[Service]\nType=oneshot\nExecStart=true\n[Install]\nAlias=d9-alias.service'
  systemctl daemon-reload
  systemctl enable --quiet d9-real.service
  elsewhere d9-alias.service
}

D10_a_timer_for_an_instance_of_a_vendor_template() {
  vendor_unit d10-v@.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  elsewhere 'd10-v@x\x2dy.service'
}

D11_a_timer_for_an_init_script() {
  mkdir -p /etc/init.d
  printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: d11-sysv\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2\n# Default-Stop: 0\n# Short-Description: old\n### END INIT INFO\nexit 0\n' >/etc/init.d/d11-sysv
  chmod 755 /etc/init.d/d11-sysv
  systemctl daemon-reload
  is d11-sysv.service LoadState loaded
  elsewhere d11-sysv.service
  rm /etc/init.d/d11-sysv
}

D12_a_timer_for_a_service_that_systemd_does_not_know() {
  unit d12-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=d12-none.service\n[Install]\nWantedBy=timers.target'
  deploy 65
  absent $units/d12-t.timer
}

D13_the_drop_in_of_the_administrator_draws_a_warning() {
  unit d13-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  mkdir -p $units/d13-app.service.d $units/service.d
  printf '[Service]\nTypoOfTheAdministrator=1\n' >$units/d13-app.service.d/mine.conf
  printf '[Service]\nAnotherTypo=1\n' >$units/service.d/d13.conf
  systemctl daemon-reload
  unit d13-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit d13-new.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs d13-app.service 'sleep 200000'
  settled
  rm $units/d13-new.service
  run 0 sync
  [[ -e $units/d13-new.service ]]
  # A fault of the commit itself is still refused.
  unit d13-app.service <<<$'[Service]\nExecStart=sleep 300000\nTypoOfTheCommit=1\n[Install]\nWantedBy=multi-user.target'
  deploy 65
  grep -q TypoOfTheCommit /tmp/err
  no grep -q TypoOfTheAdministrator <(grep '"level":"ERROR"' /tmp/err)
  runs d13-app.service 'sleep 200000'
}

D14_a_vendor_unit_with_faults_gets_a_drop_in() {
  vendor_unit d14-v.service <<<$'[Unit]\nOldKeyOfTheVendor=1\n[Service]\nExecStart=sleep 100000\nKillMode=none\nPIDFile=/var/run/d14.pid\nStandardOutput=syslog\n[Install]\nWantedBy=multi-user.target'
  systemctl daemon-reload
  systemctl enable --quiet --now d14-v.service
  unit d14-v.service.d/nice.conf <<<$'[Service]\nUMask=0027'
  deploy
  is d14-v.service UMask 0027
  settled
  # When the drop-in is removed, the unit keeps running without it.
  unit d14-keep.service <<<$'[Service]\nExecStart=true'
  drop d14-v.service.d
  deploy
  is d14-v.service UMask 0022
  active d14-v.service
  enabled d14-v.service
  settled
}

D15_an_override_of_a_vendor_template_goes() {
  vendor_unit d15-v@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  systemctl daemon-reload
  systemctl enable --quiet --now d15-v@one.service
  unit d15-v@.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit d15-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  runs d15-v@one.service 'sleep 200000'
  drop d15-v@.service
  deploy
  runs d15-v@one.service 'sleep 100000'
  enabled d15-v@one.service
  settled
}

D16_an_override_of_a_static_vendor_unit_goes() {
  vendor_unit d16-v.service <<<$'[Service]\nExecStart=sleep 100000'
  systemctl daemon-reload
  systemctl start d16-v.service
  unit d16-v.service <<<$'[Service]\nExecStart=sleep 200000'
  unit d16-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  runs d16-v.service 'sleep 200000'
  drop d16-v.service
  deploy
  runs d16-v.service 'sleep 100000'
  settled
}

D17_an_override_of_a_vendor_timer_goes() {
  vendor_unit d17-v.timer <<<$'[Timer]\nOnCalendar=2091-01-01\n[Install]\nWantedBy=timers.target'
  vendor_unit d17-v.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  systemctl daemon-reload
  systemctl enable --quiet --now d17-v.timer
  unit d17-v.timer <<<$'[Timer]\nOnCalendar=2092-01-01\n[Install]\nWantedBy=timers.target'
  unit d17-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  [[ $(property d17-v.timer NextElapseUSecRealtime) == *2092-01-01* ]]
  drop d17-v.timer
  deploy
  active d17-v.timer
  enabled d17-v.timer
  [[ $(property d17-v.timer NextElapseUSecRealtime) == *2091-01-01* ]]
  settled
}

# A package's unit that the host disabled: the override did not enable it, and its removal does not either.
D18_an_override_of_a_disabled_vendor_unit_goes() {
  vendor_unit d18-v.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit d18.preset <<<'disable d18-v.service'
  unit d18-v.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit d18-keep.service <<<$'[Service]\nExecStart=true'
  deploy
  inactive d18-v.service
  drop d18-v.service
  deploy
  inactive d18-v.service
  enabled d18-v.service disabled
  settled
}

D19_a_runtime_mask() {
  systemctl mask --quiet --runtime d19-job.service
  unit d19-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d19-job.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  deploy
  said skip d19-job.service masked
  is d19-job.service LoadState masked
  settled
  systemctl unmask --quiet --runtime d19-job.service
  run 0 sync
  active d19-job.timer
  settled
}

D20_a_masked_instance() {
  systemctl mask --quiet d20-w@one.service
  unit d20-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit d20.preset <<<'enable d20-w@.service one two'
  deploy
  is d20-w@one.service LoadState masked
  active d20-w@two.service
  settled
}

D21_a_masked_timer() {
  systemctl mask --quiet d21-job.timer
  unit d21-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d21-job.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  deploy
  said skip d21-job.timer masked
  [[ -e $units/d21-job.service ]]
  settled
}

D22_a_masked_socket_and_path() {
  systemctl mask --quiet d22-a.socket d22-b.path
  unit d22-a.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  unit d22-a.socket <<<$'[Socket]\nListenFIFO=/run/d22-fifo\n[Install]\nWantedBy=sockets.target'
  unit d22-b.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d22-b.path <<<$'[Path]\nPathExists=/run/d22-none\n[Install]\nWantedBy=multi-user.target'
  deploy
  said skip d22-a.socket masked
  said skip d22-b.path masked
  settled
}

D23_the_service_of_a_socket_is_masked() {
  systemctl mask --quiet d23-a.service d23-b.service
  unit d23-a.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  unit d23-a.socket <<<$'[Socket]\nListenFIFO=/run/d23-fifo\n[Install]\nWantedBy=sockets.target'
  unit d23-b.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d23-other.path <<<$'[Path]\nPathExists=/run/d23-none\nUnit=d23-b.service\n[Install]\nWantedBy=multi-user.target'
  deploy
  said skip d23-a.socket masked
  said skip d23-other.path masked
  settled
}

# systemctl mask refuses if there is a file. Administrators move the file away.
D24_masked_after_it_was_deployed() {
  unit d24-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit d24-job.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit d24-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  rm $units/d24-job.service
  systemctl mask --quiet --now d24-job.service
  run 0 sync
  [[ $(readlink $units/d24-job.service) == /dev/null ]]
  settled
  unit d24-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  runs d24-app.service 'sleep 200000'
  settled
}

D25_a_vendor_unit_is_masked_and_overridden() {
  vendor_unit d25-v.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  systemctl mask --quiet d25-v.service
  unit d25-v.service.d/nice.conf <<<$'[Service]\nUMask=0027'
  unit d25-app.service <<<$'[Unit]\nWants=d25-v.service\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  is d25-v.service LoadState masked
  active d25-app.service
  settled
}

D26_a_timer_for_a_mount_of_fstab() {
  mkdir -p /srv/d26
  cp /etc/fstab /tmp/fstab 2>/dev/null || : >/tmp/fstab
  echo 'tmpfs /srv/d26 tmpfs noauto 0 0' >>/etc/fstab
  systemctl daemon-reload
  elsewhere srv-d26.mount
  cp /tmp/fstab /etc/fstab
}

D27_drop_in_of_an_alias() {
  vendor_daemon d27-v.service
  ln -s $vendor/d27-v.service $units/d27-alias.service
  systemctl daemon-reload
  unit d27-alias.service.d/10.conf <<<$'[Service]\nExecStart=\nExecStart=sleep 200000'
  unit d27-k.service <<<$'[Service]\nExecStart=true'
  deploy
  runs d27-v.service 'sleep 200000'
  settled
  unit d27-alias.service.d/10.conf <<<$'[Service]\nExecStart=\nExecStart=false'
  deploy 10
  runs d27-v.service 'sleep 200000'
  unit d27-alias.service.d/10.conf <<<$'[Service]\nExecStart=\nExecStart=sleep 300000'
  deploy
  runs d27-v.service 'sleep 300000'
  drop d27-alias.service.d
  deploy
  runs d27-v.service 'sleep 100000'
  settled
}

D28_vendor_drop_in_with_install() {
  vendor_daemon d28-v.service
  unit d28-v.service.d/10.conf <<<$'[Install]\nWantedBy=rescue.target'
  unit d28-k.service <<<$'[Service]\nExecStart=true'
  deploy
  [[ -L $units/rescue.target.wants/d28-v.service ]]
  settled
  drop d28-v.service.d
  deploy
  enabled d28-v.service
  active d28-v.service
  absent $units/rescue.target.wants/d28-v.service
  settled
}

D29_masked_instance() {
  systemctl mask --quiet d29-w@one.service
  unit d29-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 10-d29.preset <<<'enable d29-w@.service one two'
  deploy
  said skip d29-w@one.service masked
  active d29-w@two.service
  settled
  systemctl unmask --quiet d29-w@one.service
  run 0 sync
  active d29-w@one.service
  settled
}
