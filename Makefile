# Two commands matter: `make demo` shows the product at work, `make test` proves it.
# Everything that is installed by hand anywhere else is installed here by `make deps`.

CARGO  ?= cargo
TARGET := $(shell uname -m)-unknown-linux-gnu
OUT    := $(or $(CARGO_TARGET_DIR),target)
# The wrapper links rblocksync and pvesync statically, so that they run on any host they are sent to. It has no path here, since
# cargo's digests of it would then depend on where this tree is.
RELEASE := PATH="$(CURDIR)/packaging:$$PATH" RUSTC_WORKSPACE_WRAPPER=rustc-static.sh $(CARGO) build --release --locked --target $(TARGET)
export LAB_BINARIES := $(abspath $(OUT))/$(TARGET)/release

# The tests on two hypervisor guests, the longest first.
LABS := pvesync_roles pvesync_lab pvesync_endings pvesync_mixed lvm_lab lab_selftest virt_seeded virt_running virt_translated virt_replica virt_lvm virt_hook virt_bed pvesync_quickstart virt_quickstart
# Tests that take a minute or more, much of which they wait.
SLOW := report_page migrate_sweep rblocksync_busy rblocksync_endings crash_sweep
# The names of a package's files of tests.
tests_of = $(patsubst $(1)/tests/%,%,$(basename $(wildcard $(1)/tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard $(1)/tests/*/main.rs)))
UNITS := $(sort $(foreach package,core pve-plugin libvirt-domain libvirt-hook,$(call tests_of,$(package))))
# By `make test-packages` alone: as root, and with a mirror of Debian.
ROOTS := packages
QUICK := $(filter-out $(LABS) $(SLOW) $(ROOTS),$(call tests_of,tests))
# Always of the whole workspace: of a part of it, the crates that others need could have other features, and all be built anew.
CARGO_TEST := $(CARGO) test --locked --workspace
# Of these so many at a time. More of them keep the processors no busier, and make each other's time limits be reached.
JOBS ?= $(shell nproc)

.PHONY: all build static deps demo test check docs bench bench-micro bench-latency fuzz fuzz-smoke fuzz-lock generate deb deb-twice deb-source test-packages dist lab-up lab-down clean units quick $(LABS) $(SLOW)

all: build

# Debian packages that the lab and the tests need; nothing happens if they are there.
deps:
	tests/lab/deps.sh

# FLAGS are further words for cargo.
build:
	$(RELEASE) $(FLAGS) -p rblocksync -p pvesync -p virt-blocksync

# What the guests of the labs run.
static:
	$(RELEASE) $(FLAGS) -p rblocksync -p pvesync

demo: deps build
	$(CARGO) run --locked -q -p tests --bin demo

# The page of `pvesync report` is read by a browser.
test: deps check static
	tests/lab/deps.sh chromium fonts-dejavu-core
	$(CARGO_TEST) --no-run
	$(CARGO_TEST) --no-run $(LABS:%=--test %)
# The program is there: tests of its package run it.
	VIRT_BLOCKSYNC=$(abspath $(OUT))/debug/virt-blocksync $(MAKE) -j$(JOBS) --keep-going --output-sync $(LABS) $(SLOW) units quick fuzz-smoke

# Each boots a lab of its own; `make build` first.
$(LABS) $(SLOW):
	$(CARGO_TEST) --test $@

# All that is not in a file of its own below tests/tests.
units:
	$(CARGO_TEST) --lib --bins $(UNITS:%=--test %) --no-fail-fast -- --test-threads=2
	$(CARGO_TEST) --doc

quick:
	$(CARGO_TEST) $(QUICK:%=--test %) --no-fail-fast -- --test-threads=2

check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace $(LABS:%=--test %) $(ROOTS:%=--test %) -- -D warnings
	$(CARGO) clippy --locked --manifest-path fuzz/Cargo.toml --target-dir $(OUT) --all-targets -- -D warnings
	$(CARGO) doc --locked --workspace --no-deps -q
	tests/lab/cargo-deny.sh
	packaging/check-version.sh

# What of the documents is made by the programs, and the pictures of the status page, which its own test makes.
docs: static
	tests/lab/deps.sh chromium fonts-dejavu-core
	DOCS_UPDATE=1 $(CARGO_TEST) --test docs
	DOCS_UPDATE=1 $(CARGO_TEST) --test report_page pictures

lab-up: deps build
	$(CARGO) run --locked -q -p tests --bin lab -- up

lab-down:
	$(CARGO) run --locked -q -p tests --bin lab -- down

# More words for it, as in `make bench ARGS="--rounds 5 --json bench.json a b"`: docs/benchmarks.md.
bench: build
	tests/lab/deps.sh b3sum rsync zstd
	$(CARGO) run --locked -q --release -p tests --bin bench -- $(ARGS)

# The hot loops, counted in instructions under valgrind.
bench-micro:
	tests/lab/deps.sh valgrind
	tests/benches/run.sh $(ARGS)

# How long a guest waits for its writes while it is synced over a slow link.
bench-latency: deps
	$(CARGO) bench --locked -p tests --bench guest_latency

# One fuzz target, long: `make fuzz FUZZ=session_target SECONDS=3600`.
FUZZ    ?= session_target
SECONDS ?= 600
fuzz:
	fuzz/run.sh $(FUZZ) $(SECONDS)

# All fuzz targets, a minute in all.
fuzz-smoke:
	fuzz/run.sh smoke 60

# Debian packages, in target/deb/build: docs/packages.md.
DEB_TOOLS := build-essential debhelper dpkg-dev lintian
deb:
	tests/lab/deps.sh $(DEB_TOOLS)
	packaging/deb.sh $(OUT)/deb
	packaging/lintian.sh $(OUT)/deb/build

# Built again, in a directory of another name, they must be the same to the last bit.
deb-twice: deb
	packaging/deb.sh $(OUT)/deb once-more
	packaging/same.sh $(OUT)/deb/build $(OUT)/deb/once-more

# Their source, as Debian's tools want it.
deb-source:
	tests/lab/deps.sh $(DEB_TOOLS)
	packaging/deb.sh $(OUT)/deb source -S

# What an installation, an upgrade, a removal and a purge do, on Debian 12 and 13: of the packages in LAB_DEBS, if it is
# set, or of some that are made of the programs that are here.
test-packages: build
	tests/lab/deps.sh $(DEB_TOOLS) debootstrap
	VIRT_BLOCKSYNC=$(LAB_BINARIES)/virt-blocksync $(CARGO_TEST) $(ROOTS:%=--test %)

# The two tarballs that they are built from.
dist:
	packaging/dist.sh $(OUT)/deb

# Man pages and completions, after an option has changed; a test says so if they are not up to date.
generate:
	GENERATE=1 $(CARGO_TEST) --bin generate

# After the dependencies of a crate have changed: the fuzz targets are a workspace of their own.
fuzz-lock:
	cp Cargo.lock fuzz/Cargo.lock
	$(CARGO) metadata --manifest-path fuzz/Cargo.toml --format-version 1 > /dev/null

clean:
	$(CARGO) clean
