# shellcheck shell=bash disable=SC2154,SC2086 # host.sh sets the variables; no name has a space
# F. Declared enablement is reached.

# linked and unlinked UNIT BY [NAME] check whether BY has a link to the unit: .wants, or .NAME.
linked() { [[ -L $units/$2.${3:-wants}/$1 ]] || { echo "$1 has no link in $2.${3:-wants}" && return 1; }; }
unlinked() { [[ ! -L $units/$2.${3:-wants}/$1 ]] || { echo "$1 still has a link in $2.${3:-wants}" && return 1; }; }

F1_install_loses_a_target_and_an_alias() {
  unit f1-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target graphical.target\nRequiredBy=f1-x.target\nAlias=f1-alias.service f1-keep.service'
  unit f1-x.target <<<$'[Unit]\nDescription=x'
  deploy
  unit f1-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlias=f1-keep.service'
  deploy
  linked f1-app.service multi-user.target
  unlinked f1-app.service graphical.target
  unlinked f1-app.service f1-x.target requires
  absent $units/f1-alias.service
  [[ -L $units/f1-keep.service && $(property f1-app.service MainPID) != 0 ]]
  settled
}

F2_install_goes_altogether() {
  unit f2-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlias=f2-alias.service'
  unit f2-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=f2-app.service\n[Install]\nWantedBy=timers.target'
  deploy
  unit f2-app.service <<<$'[Service]\nExecStart=sleep 100000'
  unit f2-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=f2-app.service'
  deploy
  [[ -z $(find $units -type l -name 'f2-*') ]]
  settled
}

F3_install_in_a_drop_in() {
  unit f3-app.service <<<$'[Service]\nExecStart=sleep 100000'
  unit f3-app.service.d/install.conf <<<$'[Install]\nWantedBy=multi-user.target'
  deploy
  enabled f3-app.service
  active f3-app.service
  settled
  drop f3-app.service.d
  deploy
  unlinked f3-app.service multi-user.target
  settled
}

F4_a_target_is_renamed() {
  unit f4-a.target <<<$'[Install]\nWantedBy=multi-user.target'
  unit f4-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f4-a.target'
  deploy
  active f4-app.service
  drop f4-a.target
  unit f4-b.target <<<$'[Install]\nWantedBy=multi-user.target'
  unit f4-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f4-b.target'
  deploy
  [[ -z $(find $units -type l -path '*f4-a.target*') ]]
  linked f4-app.service f4-b.target
  active f4-app.service
  active f4-b.target
  settled
}

F5_a_preset_loses_an_instance() {
  unit f5-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f5.preset <<<'enable f5-w@.service one two'
  deploy
  active f5-w@two.service
  systemctl enable --quiet --now f5-w@hand.service
  unit f5.preset <<<'enable f5-w@.service one'
  deploy
  active f5-w@one.service
  inactive f5-w@two.service
  unlinked f5-w@two.service multi-user.target
  # An instance that was enabled by hand stays enabled.
  active f5-w@hand.service
  linked f5-w@hand.service multi-user.target
  settled
}

F6_a_template_with_a_default_instance() {
  unit f6-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nDefaultInstance=main'
  unit f6.preset <<<'enable f6-w@.service'
  deploy
  linked f6-w@main.service multi-user.target
  active f6-w@main.service
  settled
  unit f6-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nDefaultInstance=other'
  deploy
  linked f6-w@other.service multi-user.target
  unlinked f6-w@main.service multi-user.target
  settled
}

F7_enabled_units_that_somebody_stopped() {
  unit f7-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f7-g.target <<<$'[Install]\nWantedBy=multi-user.target'
  unit f7-p.path <<<$'[Path]\nPathExists=/run/f7-none\nUnit=f7-app.service\n[Install]\nWantedBy=multi-user.target'
  unit f7-once.service <<<$'[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target'
  deploy
  local name
  for name in f7-app.service f7-g.target f7-p.path f7-once.service; do active $name; done
  systemctl stop f7-app.service f7-g.target f7-p.path f7-once.service
  run 0 sync
  said restart f7-app.service inactive
  for name in f7-app.service f7-g.target f7-p.path f7-once.service; do active $name; done
  settled
}

F8_an_enabled_service_that_crashed() {
  unit f8-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f8-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f8.preset <<<'enable f8-w@.service one'
  deploy
  systemctl kill --signal=SEGV f8-app.service f8-w@one.service
  await failed f8-app.service
  await failed f8-w@one.service
  run 0 sync
  active f8-app.service
  active f8-w@one.service
  settled
}

F9_wanted_by_a_target_that_is_not_active() {
  unit f9-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f9-later.target'
  unit f9-later.target <<<$'[Unit]\nDescription=later'
  unit f9-rescue.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=rescue.target'
  deploy
  linked f9-app.service f9-later.target
  inactive f9-app.service
  inactive f9-rescue.service
  settled
  systemctl start f9-later.target
  settled
  active f9-app.service
}

F10_wanted_by_another_service() {
  unit f10-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f10-idle.service <<<$'[Service]\nExecStart=sleep 100000'
  unit f10-side.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f10-app.service'
  unit f10-never.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f10-idle.service'
  deploy
  active f10-side.service
  inactive f10-never.service
  systemctl stop f10-side.service
  run 0 sync
  active f10-side.service
  settled
}

F11_also_and_required_by() {
  unit f11-a.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlso=f11-b.socket'
  unit f11-b.socket <<<$'[Socket]\nListenFIFO=/run/f11-b\n[Install]\nRequiredBy=f11-x.target'
  unit f11-b.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
  unit f11-x.target <<<$'[Install]\nWantedBy=multi-user.target'
  deploy
  linked f11-b.socket f11-x.target requires
  active f11-b.socket
  settled
}

# UpheldBy= exists since systemd 256. Older versions report it as an unknown key.
F12_upheld_by() {
  unit f12-x.target <<<$'[Install]\nWantedBy=multi-user.target'
  unit f12-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nUpheldBy=f12-x.target'
  if (($(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') < 256)); then
    deploy 65
    return
  fi
  deploy
  linked f12-app.service f12-x.target upholds
  active f12-app.service
  settled
  unit f12-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f12-x.target'
  deploy
  unlinked f12-app.service f12-x.target upholds
  settled
}

F13_enabled_by_hand_and_install_changes() {
  unit f13.preset <<<'disable f13-*'
  unit f13-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  unlinked f13-app.service multi-user.target
  systemctl enable --quiet f13-app.service
  settled
  unit f13-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=graphical.target'
  deploy
  # The unit stays enabled, with the links that the commit declares now.
  linked f13-app.service graphical.target
  unlinked f13-app.service multi-user.target
  settled
}

F14_links_of_the_administrator_stay() {
  unit f14-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f14-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  systemctl add-wants --quiet graphical.target f14-app.service
  systemctl enable --quiet --now f14-w@mine.service
  settled
  unit f14-app.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  unit f14-w@.service <<<$'[Service]\nExecStart=sleep 200000\n[Install]\nWantedBy=multi-user.target'
  deploy
  linked f14-app.service graphical.target
  linked f14-w@mine.service multi-user.target
  runs f14-w@mine.service 'sleep 200000'
  settled
}

F15_enablement_is_undone_with_its_commit() {
  unit f15-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlias=f15-alias.service'
  unit f15-w@.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  unit f15.preset <<<'enable f15-w@.service one two'
  deploy
  find $units -type l -printf '%P %l\n' | sort >/tmp/before
  unit f15-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=graphical.target'
  unit f15.preset <<<'enable f15-w@.service two three'
  unit f15-probe.service <<<$'[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes\n[Install]\nWantedBy=multi-user.target'
  deploy 10
  find $units -type l -printf '%P %l\n' | sort | diff /tmp/before -
  active f15-app.service
  active f15-w@one.service
  active f15-w@two.service
  inactive f15-w@three.service
  settled
}

F16_a_timer_that_was_disabled_by_hand() {
  unit f16-t.timer <<<$'[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target'
  unit f16-t.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  deploy
  systemctl disable --quiet --now f16-t.timer
  run 0 sync
  enabled f16-t.timer
  active f16-t.timer
  settled
}

F17_the_presets_change_their_mind_about_an_alias() {
  unit f17-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\nAlias=f17-alias.service'
  deploy
  [[ -L $units/f17-alias.service ]]
  unit f17.preset <<<'disable f17-app.service'
  deploy
  absent $units/f17-alias.service
  unlinked f17-app.service multi-user.target
  settled
}

# A service that is enabled for the next boot only, by a drop-in for the target of another unit.
F18_a_service_that_nobody_wants_now_is_not_started() {
  unit f18-app.service <<<$'[Service]\nExecStart=sleep 100000'
  unit f18-job.service <<<$'[Service]\nType=oneshot\nExecStart=touch /run/f18-ran'
  unit f18-job.timer <<<$'[Timer]\nOnCalendar=2099-01-01\n[Install]\nWantedBy=timers.target'
  deploy
  inactive f18-app.service
  absent /run/f18-ran
  settled
  absent /run/f18-ran
}

F19_wanted_by_the_alias_of_a_target() {
  unit f19-real.target <<<$'[Install]\nWantedBy=multi-user.target\nAlias=f19-alias.target'
  unit f19-app.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=f19-alias.target'
  deploy
  active f19-app.service
  systemctl stop f19-app.service
  run 0 sync
  active f19-app.service
  settled
}

F20_timer_whose_service_is_renamed() {
  unit f20-a.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit f20-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=f20-a.service\n[Install]\nWantedBy=timers.target'
  deploy
  active f20-t.timer
  drop f20-a.service
  unit f20-b.service <<<$'[Service]\nType=oneshot\nExecStart=true'
  unit f20-t.timer <<<$'[Timer]\nOnCalendar=daily\nUnit=f20-b.service\n[Install]\nWantedBy=timers.target'
  deploy
  active f20-t.timer
  is f20-t.timer Unit f20-b.service
  settled
}

F21_two_repositories_one_unit_with_drop_ins() {
  unit f21.service <<<$'[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target'
  deploy
  local hub_a=$hub state_a=$state
  hub=$hub_a-2 state=$state_a-2
  git init -q -b main "$hub"
  unit f21.service.d/10.conf <<<$'[Service]\nExecStart=\nExecStart=sleep 200000\n[Install]\nWantedBy=rescue.target'
  unit f21-k.service <<<$'[Service]\nExecStart=true'
  deploy
  runs f21.service 'sleep 200000'
  settled
  hub=$hub_a state=$state_a
  settled
  hub=$hub_a-2 state=$state_a-2
  drop f21.service.d
  deploy
  runs f21.service 'sleep 100000'
  enabled f21.service
  settled
  hub=$hub_a state=$state_a
  settled
}
