#!/usr/bin/env bash
# Fetches what the tests on kernel modules ask: Debian's cloud kernels 6.1 (bookworm) and 6.12 (trixie) with their modules, and
# the kernel's own sign-file. They are unpacked below DIRECTORY and not installed; what is there already is not fetched again.
set -euo pipefail

[ $# = 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# The mirror that this machine uses for the distribution itself.
find_mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u | head -n 1
}

[ ! -d "$directory/bookworm" ] || [ ! -d "$directory/trixie" ] || exit 0
mirror=$(find_mirror)
if [ -z "$mirror" ]; then
	sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -q
	mirror=$(find_mirror)
fi
[ -n "$mirror" ] || { echo "$0: apt knows no Debian mirror, which the kernels come from: look at sources.list(5)" >&2; exit 1; }

# apt with one suite, and lists and packages of its own.
suite_apt() {
	local suite=$1 command=$2 state=$directory/apt-$1
	shift 2
	"$command" -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/sources" \
		-o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root \
		-o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# fetch SUITE PACKAGE…: unpacks the packages into DIRECTORY/SUITE.
fetch() {
	local suite=$1 state=$directory/apt-$1
	shift
	mkdir -p "$state"/{sources,lists/partial,cache/archives/partial,unpacked}
	cat > "$state/sources/suite.sources" <<-SOURCES
		Types: deb
		URIs: $mirror
		Suites: $suite
		Components: main
		Architectures: amd64
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	SOURCES
	suite_apt "$suite" apt-get update
	local image
	image=$(suite_apt "$suite" apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
	[ -n "$image" ] || { echo "$0: $suite has no cloud kernel" >&2; exit 1; }
	(
		cd "$state"
		suite_apt "$suite" apt-get download "$image" "$@"
		for package in ./*.deb; do dpkg-deb -x "$package" unpacked; done
	)
	mv "$state/unpacked" "$directory/$suite"
	rm -rf "$state"
}

[ -d "$directory/bookworm" ] || fetch bookworm linux-kbuild-6.1
[ -d "$directory/trixie" ] || fetch trixie
