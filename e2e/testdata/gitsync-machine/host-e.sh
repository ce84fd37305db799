# shellcheck shell=bash disable=SC2154,SC2086 # host.sh sets the variables; no name has a space
# E. Plans become empty.

E1_wanted_by_something_with_specifiers() {
  unit e1-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target dev-%i.device %p-%i.target'
  unit e1.preset <<<'enable e1-w@.service null'
  deploy
  active e1-w@null.service
  local before
  before=$(pid e1-w@null.service)
  settled
  [[ $(pid e1-w@null.service) == "$before" ]]
}

E2_a_preset_that_ignores() {
  unit e2-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit e2-job.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit e2-job.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit 10-e2.preset <<<'ignore e2-*'
  deploy
  # systemd 252 does not know this word and enables units that no line names.
  if (($(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') >= 256)); then
    enabled e2-app.service disabled
    inactive e2-app.service
  fi
  settled
  # The plan is also empty after the unit is enabled by hand.
  systemctl enable --quiet e2-app.service
  systemctl start e2-app.service
  settled
  enabled e2-app.service
}

# unmet CONDITION writes units of all kinds with this condition, which is not met.
unmet() {
  unit "$p-s.socket" <<<$'[Unit]\n'"$1"$'\n[Socket]\nListenFIFO=/run/'"$p"$'-fifo\n[Install]\nWantedBy=sockets.target'
  unit "$p-s.service" <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  unit "$p-t.timer" <<<$'[Unit]\n'"$1"$'\n[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit "$p-t.service" <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit "$p-p.path" <<<$'[Unit]\n'"$1"$'\n[Path]\nPathExists=/run/none\nUnit='"$p"$'-t.service\n[Install]\nWantedBy=multi-user.target'
  unit "$p-d.service" <<<$'[Unit]\n'"$1"$'\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
}

E3_a_condition_that_is_not_met() {
  unmet ConditionPathExists=/run/e3-none
  deploy
  settled
  # When the condition is met, the units are started again.
  touch /run/e3-none
  run 0 sync
  active e3-s.socket
  active e3-t.timer
  active e3-d.service
  settled
}

E4_a_condition_in_a_drop_in() {
  unmet Description=x
  local name
  for name in e4-s.socket e4-t.timer e4-p.path e4-d.service; do unit $name.d/c.conf <<<$'[Unit]\nConditionVirtualization=no'; done
  deploy
  settled
}

E5_conditions_of_the_first_boot_and_of_others() {
  unmet $'ConditionFirstBoot=yes\nConditionKernelVersion=>1.0'
  deploy
  settled
}

E6_an_assertion_that_is_no_longer_met() {
  unmet AssertPathExists=/run/e6-there
  touch /run/e6-there
  deploy
  active e6-t.timer
  rm /run/e6-there
  systemctl stop e6-s.socket e6-t.timer e6-p.path e6-d.service
  run 0 sync
  settled
}

E7_a_timer_whose_service_is_skipped_by_its_condition() {
  unit e7-t.timer <<<$'[Timer]\nOnActiveSec=1ms\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target'
  unit e7-t.service <<<$'[Unit]\nConditionPathExists=/run/e7-none\n[Service]\nType=oneshot\nExecStart=true'
  deploy
  active e7-t.timer
  settled
}

E8_a_service_that_ends_by_itself() {
  unit e8-once.service <<<$'[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  unit e8-one.service <<<$'[Service]\nType=oneshot\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  unit e8-exec.service <<<$'[Service]\nType=exec\nExecStart=true\nRestart=on-failure\n[Install]\nWantedBy=multi-user.target'
  unit e8-status.service <<<$'[Service]\nExecStart=sh -c "exit 3"\nSuccessExitStatus=3\n[Install]\nWantedBy=multi-user.target'
  deploy
  await inactive e8-once.service
  settled
}

E9_units_that_may_not_be_started_by_hand() {
  unit e9-t.timer <<<$'[Unit]\nRefuseManualStart=yes\n[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit e9-t.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit e9-x.target <<<$'[Unit]\nRefuseManualStart=yes\nRefuseManualStop=yes\n[Install]\nWantedBy=multi-user.target'
  deploy
  settled
}

E10_an_accepting_socket_and_a_started_template() {
  unit e10-a.socket <<<$'[Socket]\nListenStream=/run/e10-a\nAccept=yes\n[Install]\nWantedBy=sockets.target'
  unit e10-a@.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  deploy
  active e10-a.socket
  settled
}

E11_a_preset_with_instances_and_an_alias() {
  unit e11-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlias=e11-also@%i.service'
  unit e11.preset <<<'enable e11-w@.service a b'
  deploy
  active e11-w@a.service
  settled
}

E12_the_hosts_own_preset_disables_everything() {
  printf 'disable *\n' >/etc/systemd/system-preset/99-e12.preset
  unit e12-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit e12-on.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit 50-e12.preset <<<'enable e12-on.service'
  deploy
  inactive e12-app.service
  active e12-on.service
  settled
}

E13_presets_say_enable_for_a_unit_without_install() {
  unit e13-app.service <<<$'[Service]\nExecStart=sleep 100000'
  unit e13-also.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nAlso=e13-t.timer'
  unit e13-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=e13-app.service\n[Install]\nWantedBy=timers.target'
  unit 50-e13.preset <<<$'enable e13-app.service\nenable e13-also.service'
  deploy
  inactive e13-app.service
  enabled e13-t.timer
  settled
}

E14_wanted_by_a_device_that_is_not_plugged_in() {
  unit e14-dev.service <<<$'[Unit]\nBindsTo=dev-e14.device\nAfter=dev-e14.device\n[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=dev-e14.device'
  unit e14-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  SECONDS=0
  deploy
  inactive e14-dev.service
  enabled e14-dev.service
  settled
  ((SECONDS < 30)) # systemd waits 90 s for a device
}

E15_a_command_that_is_a_condition() {
  unit e15-app.service <<<$'[Service]\nExecCondition=sh -c "exit 1"\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit e15-once.service <<<$'[Unit]\nConditionPathExists=/run/e15-none\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  unit e15-cond.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecCondition=sh -c "exit 1"\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  deploy
  inactive e15-app.service
  settled
}

# The timer has fired and is unloaded. If gitsync started it again, it would fire again.
E16_a_timer_that_does_not_remain() {
  unit e16-t.timer <<<$'[Timer]\nOnActiveSec=100ms\nAccuracySec=1ms\nRemainAfterElapse=no\n[Install]\nWantedBy=timers.target'
  unit e16-t.service <<<$'[Service]\nType=oneshot\nExecStart=sh -c "echo ran >>/run/e16"'
  deploy
  await test -s /run/e16
  await inactive e16-t.timer
  settled
  [[ $(wc -l </run/e16) == 1 ]]
}

# The repository contains the files of a package, as in a repository that overrides the package.
E17_the_units_of_the_distribution() {
  local root=/srv/cases/e17/root name n=0
  mkdir -p "$root/usr" "$root/etc/systemd/system" "$hub/systemd"
  mount --bind /usr "$root/usr"
  for name in bin sbin lib; do ln -s usr/$name "$root/$name"; done
  for name in "$vendor"/*; do
    # Another package has the service of syslog.socket.
    if [[ -f $name && ! -L $name && -s $name && $name != */syslog.socket && $name =~ [.](service|timer|socket|path|target|mount|automount|slice|swap)$ ]]; then
      cp "$name" "$hub/systemd/"
      n=$((n + 1))
    fi
  done
  ((n > 100))
  deploy 0 --root "$root"
  (cd "$hub/systemd" && for name in *; do cmp "$name" "$root/etc/systemd/system/$name" || [[ $(jq -r --arg u "$name" 'select(.action == "skip" and .unit == $u).reason' /tmp/out) == not-installed-here ]]; done)
  settled 0 --root "$root"
  umount "$root/usr"
}
