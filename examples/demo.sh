#!/usr/bin/env bash
# Shows signdrop at work in a directory of its own: a key is made, a package is dropped, rpm says what it finds before and after.
# Usage: examples/demo.sh [--keep] [PATH-TO-SIGNDROP]
set -euo pipefail

keep=
if [ "${1:-}" = --keep ]; then
	keep=yes
	shift
fi
signdrop=$(realpath "${1:-$(command -v signdrop)}")
here=$PWD/dev
mkdir -p "$here/drop/alice/tools" "$here/rpmdb"
exec 9>"$here/lock"
flock -n 9 || { echo "another demo is running in $here" >&2; exit 1; }

cat >"$here/signdrop.toml" <<END
state_dir = "$here/state"
[api]
listen = ["unix:$here/api.sock", "tcp:127.0.0.1:8180"]
[keys]
algorithm = "rsa4096"
master_key = "file:$here/master.key"
[[drop]]
root     = "$here/drop"
project  = "{owner}/{project}"
identity = "{owner}#{project}@copr.example.org"
END
# A port that somebody uses is no reason not to show the rest.
if (exec 3<>/dev/tcp/127.0.0.1/8180) 2>/dev/null; then
	sed -i 's/, "tcp:127.0.0.1:8180"//' "$here/signdrop.toml"
fi
export SIGNDROP_API="unix:$here/api.sock"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. Everything that a daemon needs: signdrop init"
"$signdrop" init -c "$here/signdrop.toml" | grep -v ^Next

say "2. A package: rpmbuild"
cat >"$here/hello.spec" <<'END'
Name: hello
Version: 1.0
Release: 1
Summary: A package to be signed
License: MIT
BuildArch: noarch
%description
A package to be signed.
%install
mkdir -p %{buildroot}/usr/share/hello
echo hello > %{buildroot}/usr/share/hello/greeting
%files
/usr/share/hello/greeting
END
rpmbuild --quiet -bb --nodeps --define "_topdir $here/rpmbuild" "$here/hello.spec"
package=$here/rpmbuild/RPMS/noarch/hello-1.0-1.noarch.rpm
rpmkeys --dbpath "$here/rpmdb" --checksig -v "$package"

say "3. The daemon: signdrop serve"
"$signdrop" serve -c "$here/signdrop.toml" 2>"$here/log" 9>&- &
daemon=$!
trap 'kill "$daemon" 2>/dev/null; wait "$daemon" || true' EXIT
for _ in $(seq 600); do
	curl -fs --unix-socket "$here/api.sock" http://signdrop/readyz >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || { cat "$here/log" >&2; exit 1; }
	sleep 0.1
done
"$signdrop" key generate 'alice#tools@copr.example.org' --name alice_tools

say "4. Drop it: cp ${package##*/} dev/drop/alice/tools/"
cp "$package" "$here/drop/alice/tools/"
"$signdrop" wait "$here/drop/alice"
"$signdrop" key export 'alice#tools@copr.example.org' >"$here/alice-tools.asc"
rpmkeys --dbpath "$here/rpmdb" --import "$here/alice-tools.asc"
rpmkeys --dbpath "$here/rpmdb" --checksig -v "$here/drop/alice/tools/${package##*/}" | tee "$here/verdict"
grep -q 'Signature, key ID .*: OK' "$here/verdict"

say "5. What has become of it: signdrop status"
"$signdrop" status

if [ -n "$keep" ]; then
	say "The daemon keeps serving, and logs to dev/log; Ctrl-C ends it. In another terminal, try:"
	cat <<END
  export SIGNDROP_API=$SIGNDROP_API
  mkdir -p dev/drop/bob/games && cp dev/rpmbuild/RPMS/noarch/*.rpm dev/drop/bob/games/   # a new project, a new key
  ${signdrop#"$PWD"/} wait dev/drop && ${signdrop#"$PWD"/} inspect dev/drop
  ${signdrop#"$PWD"/} key list
  curl -s localhost:8180/metrics
END
	wait "$daemon"
fi
