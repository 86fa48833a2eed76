#!/bin/bash
# Walks through examples/copr/README.md in a throw-away copy of this machine: each step as it is written there, and behind it what the backend
# and users would notice. Called in mount, process and network namespaces of its own, which end it and the daemon.
#
# usage: switch.sh ROOT STEPS PROGRAM REPOSITORY
#   ROOT        an empty directory; the copy is made in it
#   STEPS       a directory with the page's commands: 1 … 5, back5 … back2
#   PROGRAM     the signdrop program
#   REPOSITORY  this repository
set -euo pipefail
ROOT=$1 STEPS=$2 PROGRAM=$3 REPOSITORY=$4

mount -t tmpfs -o size=2g tmpfs "$ROOT"
mkdir "$ROOT"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$ROOT/upper,workdir=$ROOT/work" overlay "$ROOT/root"
NEW=$ROOT/root
# What may be a mount of its own on this machine is none of the copy's business.
mkdir -p "$NEW"/{proc,dev,sys,run,tmp,var/tmp,source/target/release,steps}
mount -t proc proc "$NEW/proc"
mount --rbind /dev "$NEW/dev"
mount -t tmpfs tmpfs "$NEW/run"
mount -t tmpfs tmpfs "$NEW/tmp"
chmod 1777 "$NEW/tmp"
ip link set lo up
cp -r "$REPOSITORY"/{Makefile,systemd,examples} "$NEW/source/"
cp "$PROGRAM" "$NEW/source/target/release/signdrop"
cp "$STEPS"/* "$NEW/steps/"
cp "$REPOSITORY/tests/copr_switch/systemctl" "$NEW/usr/local/bin/systemctl"
cp "$REPOSITORY/tests/copr_switch/inside.sh" "$NEW/steps/inside.sh"
exec chroot "$NEW" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 /steps/inside.sh
