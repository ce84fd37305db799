# The Observability Hub's host tools.
#
#   make build                             binaries and man pages into bin/
#   make install [TOOLS="sysmetrics …"]    them, with their units and scripts, below $(DESTDIR)$(PREFIX)
#   make uninstall [TOOLS="sysmetrics …"]  the reverse
#
#   make demo                              each tool's main job once, on throw-away servers
#   make check                             format, vet, staticcheck and unit tests: no root, no servers, a minute
#   make test                              everything: builds, unit tests, end-to-end tests
#   make lint                              formatting, static analysis, unit files
#   make torture                           the kill matrices and random faults in full
#   make bench                             the cost beside that of other tools, as ratios
#   make cover [TOOLS="sysmetrics …"]      coverage per package, of unit tests and with end-to-end tests
#   make dist                              static binaries with checksums in dist/
#   make release VERSION=X.Y.Z             binaries, packages, source and the text of the tag in dist/; tags and pushes nothing
#
# install copies files and nothing else: enabling a unit is the admin's decision.
# The others install the Debian packages that they need (e2e/install-packages).

PREFIX  = /usr/local
DESTDIR =
VERSION := $(shell packaging/version)

# The tools that are there, each in a folder of its own.
TOOLS = $(patsubst %/go.mod,%,$(wildcard $(ALL:=/go.mod)))
ALL   = gitsync readsync sysmetrics volbackup

# What a tool's units and scripts begin with, in systemd/ and scripts/.
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
mandir  = $(DESTDIR)$(PREFIX)/share/man/man1

# scdoc makes the man pages; without it everything else is built.
scdoc := $(shell command -v scdoc)

# What to install for $(1), a list of tools: paths in this folder.
tool_units   = $(foreach t,$(1),$(foreach kind,service timer socket,$(wildcard systemd/$(units.$(t))*.$(kind))))
tool_scripts = $(foreach t,$(1),$(wildcard $(addprefix scripts/,$(scripts.$(t)))))
tool_sysusers = $(foreach t,$(1),$(addprefix systemd/sysusers.d/,$(sysusers.$(t))))
tool_pages   = $(if $(scdoc),$(foreach t,$(1),$(patsubst $(t)/%.scd,bin/%,$(wildcard $(t)/*.1.scd))))
# What every tool needs, whichever are installed.
common_units   = systemd/hub-failure@.service systemd/hub-notify@.service
common_scripts = scripts/hub-failure scripts/hub-notify scripts/hub-run
common_pages   = $(if $(scdoc),bin/hub-notify.1 bin/hub-run.1)

.PHONY: build install uninstall demo check test lint torture bench cover dist release modules help

# Always by the go command, which knows what is up to date, and then with this commit's version.
build: $(call tool_pages,$(TOOLS)) $(common_pages)
	$(foreach t,$(TOOLS),$(call go_build,$(t),bin/$(t))$(newline))

# $(1) = tool, $(2) = file to write, relative to this folder
go_build = cd $(1) && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X observability-hub/lib/cli.Version=$(VERSION)" -o ../$(2) .

define newline


endef

# For `make install`: only what is missing or older than its sources, so that
# `make build` as oneself and `make install` as root needs no compiler as root.
.SECONDEXPANSION:
$(addprefix bin/,$(ALL)): bin/%: $$(wildcard $$*/*.go $$*/go.mod lib/*/*.go lib/go.mod lib/*/go.mod)
	$(call go_build,$*,$@)

bin/%.1: $$(wildcard $(addsuffix /$$*.1.scd,$(ALL) docs))
	@mkdir -p bin
	scdoc <$< >$@.tmp
	mv $@.tmp $@

install: $(addprefix bin/,$(TOOLS)) $$(call tool_pages,$(TOOLS)) $(common_pages)
	install -d $(bindir) $(unitdir) $(mandir) $(libdir)/systemd/system-preset $(libdir)/sysusers.d $(libdir)/tmpfiles.d
	install -m 755 $(addprefix bin/,$(TOOLS)) $(call tool_scripts,$(TOOLS)) $(common_scripts) $(bindir)
	install -m 644 $(call tool_units,$(TOOLS)) $(common_units) $(unitdir)
	$(if $(common_pages),install -m 644 $(call tool_pages,$(TOOLS)) $(common_pages) $(mandir))
	install -m 644 systemd/80-observability-hub.preset $(libdir)/systemd/system-preset
	install -m 644 systemd/sysusers.d/observability-hub.conf $(call tool_sysusers,$(TOOLS)) $(libdir)/sysusers.d
	$(if $(call tool_scripts,$(TOOLS)),sed -i 's|^readonly version=.*|readonly version=$(VERSION)|' $(addprefix $(bindir)/,$(notdir $(call tool_scripts,$(TOOLS)))))
	install -m 644 systemd/tmpfiles.d/observability-hub.conf $(libdir)/tmpfiles.d

# On a running host the units stop first: a timer whose service is gone would
# go on failing, and an enabled unit would leave a dead link behind. What all
# tools share goes with the last of them.
uninstall:
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl disable --now $(filter-out %@.service %@.timer,$(notdir $(call tool_units,$(TOOLS)))) || :; fi
	rm -f $(addprefix $(bindir)/,$(TOOLS) $(notdir $(call tool_scripts,$(TOOLS))))
	rm -f $(addprefix $(unitdir)/,$(notdir $(call tool_units,$(TOOLS))))
	rm -f $(addprefix $(libdir)/sysusers.d/,$(notdir $(call tool_sysusers,$(TOOLS))))
	rm -f $(foreach t,$(TOOLS),$(patsubst $(t)/%.scd,$(mandir)/%,$(wildcard $(t)/*.1.scd)))
	for tool in $(ALL); do [ ! -e $(bindir)/$$tool ] || exit 0; done; \
	rm -f $(addprefix $(bindir)/,$(notdir $(common_scripts))) $(addprefix $(unitdir)/,$(notdir $(common_units))) \
		$(addprefix $(mandir)/,$(notdir $(common_pages))) \
		$(libdir)/systemd/system-preset/80-observability-hub.preset \
		$(libdir)/sysusers.d/observability-hub.conf $(libdir)/tmpfiles.d/observability-hub.conf
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	for dir in $(unitdir) $(libdir)/systemd/system-preset $(libdir)/systemd $(libdir)/sysusers.d $(libdir)/tmpfiles.d $(mandir); do \
		[ ! -d $$dir ] || rmdir --ignore-fail-on-non-empty $$dir; done

# Tests need root (systemd-nspawn, users, mounts): as another user they run by sudo.
# By env, as Debian's sudo has a PATH of its own that --preserve-env does not change.
as_root = $(if $(filter 0,$(shell id -u)),,sudo env "PATH=$$PATH" CI="$$CI" HUB_TORTURE="$$HUB_TORTURE" HUB_SEED="$$HUB_SEED" )
libs     = lib lib/postgres
packages = $(foreach d,$(libs) $(TOOLS) e2e,./$(d)/...)

demo:
	e2e/install-packages build demo
	$(MAKE) build
	e2e/demo.sh
	e2e/demo-gitsync.sh
	e2e/demo-readsync.sh
	e2e/demo-volbackup.sh
	@printf '%s\n' '' 'Shown, each on servers of its own that are stopped again:' \
		'  sysmetrics  a host without and with a database, and rows for Grafana' \
		'  gitsync     a repository deployed, drift healed, a bad commit refused' \
		'  readsync    documents of MongoDB as rows of PostgreSQL, each once' \
		'  volbackup   volumes backed up, damage found, data restored'

# Each module must build alone, as somebody who depends on it does.
modules:
	$(foreach d,$(libs) $(TOOLS) e2e,cd $(d) && GOWORK=off go build -o /dev/null ./... && GOWORK=off go vet ./...$(newline))

go_lint = test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }$(newline)$(foreach d,$(libs) $(TOOLS) e2e,	cd $(d) && go vet ./... && go run $(staticcheck) ./...$(newline))

check:
	@$(go_lint)
	go run ./e2e/progress $(foreach d,$(libs) $(TOOLS),./$(d)/...)

help:
	@sed -n 's/^#   make/make/p' Makefile

test:
	e2e/install-packages build test
	$(MAKE) build modules
	$(as_root)go run ./e2e/progress -count=1 -timeout 30m $(packages)
	$(as_root)bats scripts/tests

torture:
	e2e/install-packages build test
	HUB_TORTURE=1 $(as_root)go test -count=1 -timeout 3h -v -run 'Fault|Kill|Cut|GitsyncHost' ./e2e/...

bench:
	e2e/install-packages build bench
	$(MAKE) build
	$(as_root)go run ./e2e/bench

# What the unit tests reach, then what they reach together with the end-to-end tests of the command lines, per package: those
# run binaries that count (HUB_BIN_DIR, GOCOVERDIR). A run that is killed counts nothing.
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

release:
	e2e/install-packages build
	packaging/release $(VERSION)
