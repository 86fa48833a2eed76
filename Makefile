# The commands of the README. Each installs what it needs with apt-get, and does so only where something is missing.

CARGO ?= cargo
SHELL := /bin/bash

# To build: OpenSSL's headers for sequoia's back end, which generates its bindings with libclang.
BUILD_PACKAGES = build-essential pkg-config libssl-dev libclang-dev
# What `make run` shows the daemon's work with.
RUN_PACKAGES = rpm curl
# The programs that judge in the tests.
TEST_PACKAGES = $(RUN_PACKAGES) git dnf python3 gnupg gpgv sq openssl createrepo-c rsync acl attr iproute2 make passwd e2fsprogs xfsprogs btrfs-progs mount \
	systemd util-linux strace zsh fish kmod xz-utils zstd gzip file binutils binutils-s390x-linux-gnu binutils-mips-linux-gnu
# The machine that boots kernels in `make kernel`.
KERNEL_PACKAGES = qemu-system-x86 ovmf
# Where Debian's kernels are kept, unpacked and not installed.
KERNELS = target/kernels

.PHONY: run demo test corpus kernel kernels bench fuzz audit check doc install build-packages run-packages test-packages kernel-packages

run: run-packages build-packages ## Shows a package being signed, then keeps serving until Ctrl-C
	$(CARGO) build --release --locked
	examples/demo.sh --keep target/release/signdrop

demo: run-packages build-packages ## The same, but ends by itself
	$(CARGO) build --release --locked
	examples/demo.sh target/release/signdrop

test: test-packages build-packages kernels ## All tests but those on the corpus and those that boot kernels
	$(CARGO) test --locked --lib --bins $(patsubst tests/%.rs,--test %,$(filter-out tests/corpus.rs tests/kernel.rs,$(wildcard tests/*.rs)))
	$(CARGO) test --locked -p signdrop-watcher
	@# As root and with /dev/fuse; without, they fail and say so.
	$(CARGO) test --locked -p signdrop-fuse

corpus: test-packages build-packages ## The tests on packages that others made, at ../shared/corpus or $$SIGNDROP_CORPUS
	$(CARGO) test --locked --test corpus

kernel: test-packages build-packages kernel-packages kernels ## Boots real kernels, which load what is signed and refuse all else, and runs the mount's tests on them
	$(CARGO) test --locked --test kernel

kernels: ## Fetches Debian's kernels 6.1 and 6.12, their modules, and the kernel's own sign-file
	tests/kernel/fetch.sh $(KERNELS)

bench: test-packages build-packages kernels ## The table of the README, measured here
	$(CARGO) bench --locked --bench figures

FUZZ_SECONDS ?= 60
fuzz: build-packages ## Requests of obs-sign's clients as libFuzzer invents them; needs a nightly toolchain
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	cargo +nightly fuzz run --fuzz-dir tests/fuzz obs_request -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096

check: build-packages ## Format, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

audit: ## Licences, bans and sources of all dependencies; advisories where their database can be reached
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	cargo deny check licenses bans sources
	@if cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; \
	else echo "advisories NOT checked: their database cannot be reached from here"; fi

DESTDIR ?=
PREFIX ?= /usr
install: ## Installs the release build, units and an example configuration below $(DESTDIR)$(PREFIX)
	install -D -m 755 target/release/signdrop $(DESTDIR)$(PREFIX)/bin/signdrop
	install -D -m 644 systemd/signdrop.service $(DESTDIR)$(PREFIX)/lib/systemd/system/signdrop.service
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/signdrop systemd/signdrop.service.d/*
	@# systemd 252 and older do not know notify-reload.
	if [ "$$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" -ge 253 ]; then \
		install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system/signdrop.service.d systemd/signdrop.service.d/notify-reload.conf; \
	fi
	install -D -m 644 systemd/signdrop.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/signdrop.conf
	install -D -m 644 systemd/signdrop.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/signdrop.conf
	install -D -m 644 examples/signdrop.toml $(DESTDIR)$(PREFIX)/share/doc/signdrop/signdrop.toml
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/signdrop/copr examples/copr/*

build-packages: PACKAGES = $(BUILD_PACKAGES)
run-packages: PACKAGES = $(RUN_PACKAGES)
test-packages: PACKAGES = $(TEST_PACKAGES)
kernel-packages: PACKAGES = $(KERNEL_PACKAGES)
build-packages run-packages test-packages kernel-packages:
	@missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -q && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
