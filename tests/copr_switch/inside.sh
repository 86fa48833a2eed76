#!/bin/bash
# The walk itself: a COPR backend before signdrop, the steps one by one, and back again.
set -euo pipefail
umask 022
ALICE='alice#tools@copr.example.org'
BOB='bob#new@copr.example.org'
RESULTS=/var/lib/copr/public_html/results
KEYGEN=/var/lib/copr-keygen

say() { echo "== $*"; }
fail() { echo "FAILED: $*" >&2; cat /tmp/signdrop.log >&2 2> /dev/null || true; exit 1; }
step() { say "$1"; bash -euo pipefail "/steps/$1"; }
as_backend() { setpriv --reuid=copr --regid=copr --init-groups --inh-caps=-all --bounding-set=-all "$@"; }
gpg_home() { gpg --homedir $KEYGEN/gnupg --batch --quiet --pinentry-mode loopback "$@"; }
# Whether rpm takes a package for signed with the public key in a file, and by nothing else.
is_signed() {
    local database
    database=$(mktemp -d)
    rpmkeys --dbpath "$database" --import "$1"
    rpmkeys --dbpath "$database" --define '_pkgverify_level signature' -K "$2" > /tmp/verdict 2>&1 || return 1
    grep -q 'signatures OK' /tmp/verdict
}
# A new package below a project's directory, as rsync brings it.
arrive() {
    as_backend mkdir -p "$RESULTS/$1"
    as_backend rsync -a "$PACKAGE" "$RESULTS/$1/$2"
}
# A public key as gpg writes it, so that two can be compared.
as_gpg_writes() {
    local home
    home=$(mktemp -d)
    gpg --homedir "$home" --batch --quiet --import
    gpg --homedir "$home" --batch --export
}
called() { grep -qxF "$1" /tmp/systemctl.calls || fail "not called: systemctl $1"; }

say "a backend with obs-sign and copr-keygen"
useradd --system --user-group --create-home copr
useradd --system --user-group --create-home copr-signer
install -d -o copr -g copr $RESULTS
rm -f /bin/sign
printf '#!/bin/sh\necho obs-sign\n' > /bin/sign
chmod 755 /bin/sign
# Of the backend's own module no more than what its callers import from it.
BACKEND=$(echo /usr/lib/python3.*[0-9])/site-packages/copr_backend
mkdir -p "$BACKEND"
printf '' > "$BACKEND/__init__.py"
for name in CoprSignError CoprSignNoKeyError CoprKeygenRequestError; do
    echo "class $name(Exception): pass"
done > "$BACKEND/exceptions.py"
for name in create_gpg_email create_user_keys get_pubkey sign_rpms_in_dir unsign_rpms_in_dir; do
    echo "def $name(*_, **__): return 'obs-sign'"
done > "$BACKEND/sign.py"
cp "$BACKEND/sign.py" /tmp/sign.py
mkdir -p -m 700 $KEYGEN/gnupg $KEYGEN/phrases
gpg_home --passphrase '' --quick-gen-key "alice_tools (None) <$ALICE>" rsa2048 cert,sign 5y
gpgconf --homedir $KEYGEN/gnupg --kill gpg-agent
echo 1 > "$KEYGEN/phrases/$ALICE"
touch "$KEYGEN/phrases/$ALICE.lock"
chown -R copr-signer:copr-signer $KEYGEN
gpg_home --armor --export "$ALICE" > /tmp/alice.asc
PACKAGE=/tmp/package.rpm
mkdir /tmp/rpmbuild
cat > /tmp/package.spec <<END
Name: package
Version: 1
Release: 1
Summary: A package
License: MIT
BuildArch: noarch
%description
%files
END
rpmbuild -bb --quiet --define '_topdir /tmp/rpmbuild' --define '_rpmdir /tmp/rpmbuild' /tmp/package.spec
cp /tmp/rpmbuild/noarch/package-1-1.noarch.rpm $PACKAGE
chmod 644 $PACKAGE

make -s -C /source install
step 1
id -nG copr | grep -qw signdrop || fail "the backend's user is not in the group"
[ "$(/bin/sign)" = obs-sign ] || fail "step 1 has touched /bin/sign"

step 2
called "disable --now copr-keygen"
grep -qx pong <(curl -s http://127.0.0.1:8180/ping) || fail "no ping"
gen_key() {
    curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8180/gen_key -H 'Content-Type: application/json' \
        -d "{\"name_real\": \"$1\", \"name_email\": \"$2\"}"
}
[ "$(gen_key alice_tools "$ALICE")" = 200 ] || fail "the old key is not there"
[ "$(gen_key bob_new "$BOB")" = 201 ] || fail "no new key is made"
cmp <(signdrop key export "$ALICE" | as_gpg_writes) <(as_gpg_writes < /tmp/alice.asc) || fail "the public key is another one"
[ "$(/bin/sign)" = obs-sign ] || fail "step 2 has touched /bin/sign"

step 3
called "restart copr-backend.target"
arrive alice/tools/fedora-43-x86_64/01-package a.rpm
FILE=$RESULTS/alice/tools/fedora-43-x86_64/01-package/a.rpm
sleep 1
cmp -s $PACKAGE $FILE || fail "something signs before it is asked to"
as_backend /bin/sign -u "$ALICE" -p | cmp - <(signdrop key export "$ALICE") || fail "sign -p"
as_backend /bin/sign -u nobody@copr.example.org -p 2> /tmp/said && fail "sign -p finds nobody's key"
grep -q '^unknown key:' /tmp/said || fail "$(cat /tmp/said)"
as_backend /bin/sign -4 -h sha256 -u "$ALICE" -r $FILE
is_signed /tmp/alice.asc $FILE || fail "$(cat /tmp/verdict)"
cp -p $FILE /tmp/signed.rpm

step 4
arrive alice/tools/fedora-43-x86_64/02-package b.rpm
as_backend signdrop wait $RESULTS
is_signed /tmp/alice.asc $RESULTS/alice/tools/fedora-43-x86_64/02-package/b.rpm || fail "$(cat /tmp/verdict)"
cmp /tmp/signed.rpm $FILE || fail "a package that was signed is changed"
cmp $RESULTS/alice/tools/pubkey.gpg <(signdrop key export "$ALICE") || fail "pubkey.gpg"
[ "$(stat -c %U:%a $RESULTS/alice/tools/fedora-43-x86_64/02-package/b.rpm)" = copr:644 ] || fail "owner or mode"

step 5
arrive bob/new/fedora-43-x86_64/03-package c.rpm
as_backend env PYTHONPATH="${BACKEND%/*}" python3 - <<END || fail "the backend's functions"
import logging, types
from copr_backend import sign
from copr_backend.sign import create_user_keys, get_pubkey, sign_rpms_in_dir
opts = types.SimpleNamespace(sign_domain="example.org")
log = logging.getLogger()
create_user_keys("bob", "new", opts)
get_pubkey("bob", "new", log, "example.org", "/tmp/bob.asc")
sign_rpms_in_dir("bob", "new", "$RESULTS/bob/new/fedora-43-x86_64/03-package", "fedora-43-x86_64", opts, log)
END
is_signed /tmp/bob.asc $RESULTS/bob/new/fedora-43-x86_64/03-package/c.rpm || fail "$(cat /tmp/verdict)"

step back5
cmp /tmp/sign.py "$BACKEND/sign.py" || fail "sign.py is not what it was"
[ ! -e "$BACKEND/signdrop_sign.py" ] || fail "signdrop_sign.py is left"

step back4
arrive alice/tools/fedora-43-x86_64/04-package d.rpm
sleep 1
cmp $PACKAGE $RESULTS/alice/tools/fedora-43-x86_64/04-package/d.rpm || fail "the tree is still watched"
as_backend /bin/sign -4 -h sha256 -u "$ALICE" -r $RESULTS/alice/tools/fedora-43-x86_64/04-package/d.rpm
is_signed /tmp/alice.asc $RESULTS/alice/tools/fedora-43-x86_64/04-package/d.rpm || fail "$(cat /tmp/verdict)"

step back3
[ "$(/bin/sign)" = obs-sign ] || fail "/bin/sign is not what it was"

step back2
called "enable --now copr-keygen"
# What the agent goes on with while it runs as root is no file of copr-keygen's.
gpgconf --homedir $KEYGEN/gnupg --kill gpg-agent
[ -z "$(find $KEYGEN/gnupg $KEYGEN/phrases ! -user copr-signer)" ] || fail "files belong to somebody else: $(ls -lR $KEYGEN)"
curl -s http://127.0.0.1:8180/ping && fail "signdrop still listens"
echo 'signed after the way back' > /tmp/text
for email in "$ALICE" "$BOB"; do
    [ -e "$KEYGEN/phrases/$email" ] || fail "no phrase for $email"
    # As signd has gpg sign: with the phrase that lies there.
    gpg_home --yes --passphrase-file "$KEYGEN/phrases/$email" --local-user "<$email>" --detach-sign --output /tmp/text.sig /tmp/text
    gpg_home --yes --output /tmp/home.gpg --export "$email"
    gpgv --keyring /tmp/home.gpg /tmp/text.sig /tmp/text || fail "the key of $email does not sign"
done
gpg --dearmor < /tmp/bob.asc > /tmp/bob.gpg
gpgv --keyring /tmp/bob.gpg /tmp/text.sig /tmp/text || fail "the new project's key is another one"
[ ! -e $KEYGEN/keys.asc ] && [ ! -e $KEYGEN/phrase ] || fail "private keys are left"
gpgconf --homedir $KEYGEN/gnupg --kill gpg-agent
say "all well"
