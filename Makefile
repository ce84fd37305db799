# The Observability Hub's host tools.
#
#   make build                             build binaries and man pages into bin/
#   make install [TOOLS="sysmetrics …"]    install tools with their units, scripts and man pages below $(DESTDIR)$(PREFIX)
#   make uninstall [TOOLS="sysmetrics …"]  remove the installed files, and disable the units
#
#   make demo                              run each tool's main job once, on temporary servers
#   make check                             check format, vet, staticcheck and unit tests: no root, no servers, a minute
#   make test                              run all tests: builds, unit tests, end-to-end tests
#   make lint                              check format, static analysis, shell scripts, unit files, vulnerabilities
#   make torture                           run all kills at chosen steps and all random faults
#   make bench                             compare the cost with that of other tools, as ratios
#   make bench-PART                        measure how a part scales, for docs/scale.md: PART is a directory in e2e/scale
#   make cover [TOOLS="sysmetrics …"]      print coverage per package: by unit tests, and with end-to-end tests
#   make packages                          build a .deb and a .rpm of each tool, bills of materials and checksums in dist/
#   make dist                              build static binaries with checksums in dist/
#   make release VERSION=X.Y.Z             build binaries, packages, source and the text of the tag in dist/; tag and push nothing
#
# install only copies files: enabling a unit is the administrator's decision. demo,
# test, lint, torture, bench, cover, packages and release install the Debian packages that they
# need (e2e/install-packages).

PREFIX  = /usr/local
DESTDIR =
VERSION := $(shell packaging/version)

# The tools in this source tree, each in its own directory.
TOOLS = $(patsubst %/go.mod,%,$(wildcard $(ALL:=/go.mod)))
ALL   = gitsync readsync sysmetrics volbackup

# The beginning of the names of a tool's units in systemd/, its scripts in scripts/,
# and its file in systemd/sysusers.d/.
units.gitsync     = gitops-
units.readsync    = reading-sync
units.sysmetrics  = system-metrics
units.volbackup   = volume-backup
scripts.volbackup = manage_volume.sh
sysusers.volbackup = volume-backup.conf

unknown := $(filter-out $(ALL),$(TOOLS))
ifneq ($(unknown),)
$(error no such tool: $(unknown). The tools are: $(ALL))
endif

ifeq ($(filter /usr /usr/local,$(PREFIX)),)
$(error PREFIX=$(PREFIX): it can be /usr or /usr/local, because systemd looks for programs and units only there)
endif

bindir  = $(DESTDIR)$(PREFIX)/bin
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system
libdir  = $(DESTDIR)$(PREFIX)/lib
datadir = $(DESTDIR)$(PREFIX)/share
mandir  = $(datadir)/man/man1

# scdoc makes the man pages. Without scdoc everything else is built.
scdoc := $(shell command -v scdoc)

# The files to install for $(1), a list of tools: paths in this directory.
tool_units   = $(foreach t,$(1),$(foreach kind,service timer socket,$(wildcard systemd/$(units.$(t))*.$(kind))))
tool_scripts = $(foreach t,$(1),$(wildcard $(addprefix scripts/,$(scripts.$(t)))))
tool_sysusers = $(foreach t,$(1),$(addprefix systemd/sysusers.d/,$(sysusers.$(t))))
tool_completions = $(foreach t,$(1),$(addprefix bin/$(t).,$(shells)))
tool_pages   = $(if $(scdoc),$(foreach t,$(1),$(patsubst $(t)/%.scd,bin/%,$(wildcard $(t)/*.1.scd))))
# The shells with completion: each tool writes its own. A shell looks for the completion of a tool, $(t), in this file.
shells = bash zsh fish
completion.bash = $(datadir)/bash-completion/completions/$(t)
completion.zsh  = $(datadir)/zsh/site-functions/_$(t)
completion.fish = $(datadir)/fish/vendor_completions.d/$(t).fish
# The files that every tool needs.
common_units   = systemd/hub-failure@.service systemd/hub-notify@.service systemd/hub-status.service systemd/hub-status.timer \
	systemd/hub-textfile.service systemd/hub-textfile.timer
common_scripts = scripts/hub-failure scripts/hub-notify scripts/hub-run scripts/hub-status
common_manuals = hub-failure.1 hub-notify.1 hub-run.1 hub-status.1
common_pages   = $(if $(scdoc),$(addprefix bin/,$(common_manuals)))

.PHONY: build install uninstall demo check test lint torture bench cover dist packages release modules help

.SECONDEXPANSION:

# build always runs the go command, which knows what is up to date and sets the version of this commit.
build: $(call tool_pages,$(TOOLS)) $(common_pages) $$(call tool_completions,$(TOOLS))
	$(check_go)
	$(foreach t,$(TOOLS),$(call go_build,$(t),bin/$(t))$(newline))
	$(if $(scdoc),,@echo 'make: scdoc is not installed, so there are no man pages' >&2)

# A go command before 1.21, such as Debian 12's, cannot parse go.work and does not say which version it needs. Later
# versions say it, or download what they need.
check_go = @have=$$(go env GOVERSION 2>&1) || have=; case $$have in '' | go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.20*) \
	echo "make: Go $(needed_go) is needed, not $${have:-none}. README.md, \"From source\", says where to get it." >&2; exit 69 ;; esac
needed_go = $(shell sed -n 's/^go \(1[.][0-9]*\).*/\1/p' go.work)

# $(1) = tool, $(2) = file to write, relative to this directory
go_build = cd $(1) && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X observability-hub/lib/cli.Version=$(VERSION)" -o ../$(2) .

define newline


endef

# The sources of a binary: $* is the tool.
sources = $(wildcard $*/*.go $*/internal/*/*.go $*/go.mod lib/*/*.go lib/go.mod lib/*/go.mod)

# `make install` builds only binaries that are missing or older than their sources. So
# root needs no compiler for `make install` after `make build` as another user.
$(addprefix bin/,$(ALL)): bin/%: $$(sources)
	$(check_go)
	$(call go_build,$*,$@)

# The binary must be one for this machine: packaging/build makes the completion before it builds for another.
define completion_rule
$(ALL:%=bin/%.$(1)): bin/%.$(1): $$$$(sources) | bin/%
	bin/$$* --completion $(1) >$$@.tmp
	mv $$@.tmp $$@
endef
$(foreach shell,$(shells),$(eval $(call completion_rule,$(shell))))

bin/%.1: $$(wildcard $(addsuffix /$$*.1.scd,$(ALL) docs))
	@mkdir -p bin
	scdoc <$< >$@.tmp
	mv $@.tmp $@

install: $(addprefix bin/,$(TOOLS)) $$(call tool_pages,$(TOOLS)) $(common_pages) $$(call tool_completions,$(TOOLS))
	install -d $(bindir) $(unitdir) $(mandir) $(libdir)/systemd/system-preset $(libdir)/sysusers.d $(libdir)/tmpfiles.d
	install -m 755 $(addprefix bin/,$(TOOLS)) $(call tool_scripts,$(TOOLS)) $(common_scripts) $(bindir)
	install -m 644 $(call tool_units,$(TOOLS)) $(common_units) $(unitdir)
	$(if $(common_pages),install -m 644 $(call tool_pages,$(TOOLS)) $(common_pages) $(mandir))
	$(foreach t,$(TOOLS),$(foreach shell,$(shells),install -D -m 644 bin/$(t).$(shell) $(completion.$(shell))$(newline)	))
	install -m 644 systemd/80-observability-hub.preset $(libdir)/systemd/system-preset
	install -m 644 systemd/sysusers.d/observability-hub.conf $(call tool_sysusers,$(TOOLS)) $(libdir)/sysusers.d
	$(if $(strip $(call tool_scripts,$(TOOLS))),sed -i 's|^readonly version=.*|readonly version=$(VERSION)|' $(addprefix $(bindir)/,$(notdir $(call tool_scripts,$(TOOLS)))))
	install -m 644 systemd/tmpfiles.d/observability-hub.conf $(libdir)/tmpfiles.d

# On a running host the units are stopped and disabled first. Otherwise a timer without
# its service would go on failing, and an enabled unit would leave a dead link. The
# files that all tools share are removed with the last tool.
uninstall:
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl disable --now $(filter-out %@.service %@.timer,$(notdir $(call tool_units,$(TOOLS)))) || :; fi
	rm -f $(addprefix $(bindir)/,$(TOOLS) $(notdir $(call tool_scripts,$(TOOLS))))
	rm -f $(addprefix $(unitdir)/,$(notdir $(call tool_units,$(TOOLS))))
	rm -f $(addprefix $(libdir)/sysusers.d/,$(notdir $(call tool_sysusers,$(TOOLS))))
	rm -f $(foreach t,$(TOOLS),$(patsubst $(t)/%.scd,$(mandir)/%,$(wildcard $(t)/*.1.scd)))
	rm -f $(foreach t,$(TOOLS),$(foreach shell,$(shells),$(completion.$(shell))))
	for tool in $(ALL); do [ ! -e $(bindir)/$$tool ] || exit 0; done; \
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl disable --now $(filter-out %@.service,$(notdir $(common_units))) || :; fi; \
	rm -f $(addprefix $(bindir)/,$(notdir $(common_scripts))) $(addprefix $(unitdir)/,$(notdir $(common_units))) \
		$(addprefix $(mandir)/,$(common_manuals)) \
		$(libdir)/systemd/system-preset/80-observability-hub.preset \
		$(libdir)/sysusers.d/observability-hub.conf $(libdir)/tmpfiles.d/observability-hub.conf
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	for dir in $(unitdir) $(libdir)/systemd/system-preset $(libdir)/systemd $(libdir)/sysusers.d $(libdir)/tmpfiles.d $(mandir) \
		$(foreach shell,$(shells),$(dir $(completion.$(shell)))); do \
		[ ! -d $$dir ] || rmdir --ignore-fail-on-non-empty $$dir; done

# Tests need root (systemd-nspawn, users, mounts). Other users run them with sudo. env
# sets PATH, because Debian's sudo has its own PATH, which --preserve-env does not change.
as_root = $(if $(filter 0,$(shell id -u)),,sudo env "PATH=$$PATH" CI="$$CI" HUB_TORTURE="$$HUB_TORTURE" HUB_SEED="$$HUB_SEED" )
libs     = lib lib/postgres deploy/grafana/generate
packages = $(foreach d,$(libs) $(TOOLS) e2e,./$(d)/...)

demo:
	e2e/install-packages build demo
	$(MAKE) build
	e2e/demo.sh
	e2e/demo-gitsync.sh
	e2e/demo-readsync.sh
	e2e/demo-volbackup.sh
	@printf '%s\n' '' 'Shown, each on its own servers, which are stopped again:' \
		'  sysmetrics  a host without and with a database, and rows for Grafana' \
		'  gitsync     a repository deployed, drift healed, a bad commit refused' \
		'  readsync    documents of MongoDB as rows of PostgreSQL, each once' \
		'  volbackup   volumes backed up, damage found, data restored'

# Each module must build alone, as it does for a module that depends on it.
modules:
	$(foreach d,$(libs) $(TOOLS) e2e,cd $(d) && GOWORK=off go build -o /dev/null ./... && GOWORK=off go vet ./...$(newline))

go_lint = test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }$(newline)	go vet $(packages)$(newline)	go run $(staticcheck) $(packages)$(newline)

check:
	@$(go_lint)
	go run ./e2e/progress $(foreach d,$(libs) $(TOOLS),./$(d)/...)
	go run ./e2e/progress -count=1 ./e2e/events ./e2e/docs

help:
	@sed -n 's/^#   make/make/p' Makefile

test:
	e2e/install-packages build test
	$(MAKE) build modules
	$(as_root)go run ./e2e/progress -count=1 -timeout 30m $(packages)
	$(as_root)bats scripts/tests

torture:
	e2e/install-packages build test
	HUB_TORTURE=1 $(as_root)go test -count=1 -tags torture -timeout 3h -v -run 'Fault|Kill|Cut|GitsyncHost|Torture' ./e2e/...

bench:
	e2e/install-packages build bench
	$(MAKE) build
	$(as_root)go run ./e2e/bench

# For example bench-fleet, bench-storage, bench-failover, bench-rollout.
bench-%:
	e2e/install-packages build bench
	$(MAKE) build
	$(as_root)go run ./e2e/scale/$*

# Prints the coverage of the unit tests per package, then that of unit tests and of the end-to-end tests of the command lines
# together. The end-to-end tests run binaries that record their coverage (HUB_BIN_DIR, GOCOVERDIR). A killed run records nothing.
cover_dir = $(CURDIR)/.cache/cover
COVER_RUN = Script|GitsyncHost
cover:
	e2e/install-packages build test
	rm -rf $(cover_dir)
	mkdir -p $(addprefix $(cover_dir)/,bin unit e2e)
	$(foreach t,$(TOOLS),cd $(t) && CGO_ENABLED=0 go build -cover -coverpkg=observability-hub/... -o $(cover_dir)/bin/$(t) .$(newline))
	go test -count=1 -cover $(foreach d,$(libs),./$(d)/...) $(foreach t,$(TOOLS),./$(t)/...) -args -test.gocoverdir=$(cover_dir)/unit
	$(as_root)env HUB_BIN_DIR=$(cover_dir)/bin GOCOVERDIR=$(cover_dir)/e2e \
		go test -count=1 -timeout 30m -run '$(COVER_RUN)' ./e2e ./e2e/readsync ./e2e/volbackup || status=$$?; \
	echo 'unit and end-to-end tests together:'; \
	go tool covdata percent -i=$(cover_dir)/unit,$(cover_dir)/e2e; exit $${status:-0}

staticcheck = honnef.co/go/tools/cmd/staticcheck@v0.8.2
govulncheck = golang.org/x/vuln/cmd/govulncheck@v1.9.0
shell_files = $(shell git ls-files | grep -v '[.]txtar$$' | xargs grep -lE '^\#!/(usr/bin/env bash|bin/(ba)?sh)|^\# shellcheck shell=')

lint:
	e2e/install-packages lint
	@$(go_lint)
	cd e2e/ferret && go vet .
	cd e2e/compose && GOWORK=off go vet .
	shellcheck $(shell_files)
	shfmt -i 2 -ci -bn -d $(shell_files)
	e2e/verify-units
	@$(foreach t,$(TOOLS),e2e/vulnerabilities $(t) $(govulncheck) &&) :

dist:
	rm -rf dist && mkdir dist
	$(foreach arch,amd64 arm64,$(foreach t,$(TOOLS),export GOARCH=$(arch); $(call go_build,$(t),dist/$(t)-$(VERSION)-linux-$(arch))$(newline)))
	cd dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

packages:
	e2e/install-packages build
	rm -rf dist
	packaging/build deb rpm

release:
	e2e/install-packages build
	packaging/release $(VERSION)
