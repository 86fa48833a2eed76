"""
What the backend's `sign.py` offers, for a results tree that signdrop watches: one request for a directory instead of one process for a
file. Import its functions where the backend has those of the same names; later backends keep some of them elsewhere.

Packages below the tree are signed as they arrive; `sign_rpms_in_dir` waits until all of them are. Elsewhere, as in the directories that
forks are prepared in for Pulp, it has them signed by one call of `signdrop sign`. The backend's user needs the group `signdrop`.
"""

import http.client
import json
import os
import socket
import subprocess
from urllib.parse import quote

try:
    from copr_backend.exceptions import CoprKeygenRequestError, CoprSignError, CoprSignNoKeyError
except ImportError:
    class CoprSignError(Exception):
        """Packages could not be signed."""

    class CoprSignNoKeyError(CoprSignError):
        """There is no key."""

    class CoprKeygenRequestError(Exception):
        """A key could not be made."""

__all__ = [
    "create_gpg_email",
    "create_user_keys",
    "get_pubkey",
    "sign_rpms_in_dir",
    "unsign_rpms_in_dir",
    "resign_rpms_in_dir",
]

API = os.environ.get("SIGNDROP_API", "unix:/run/signdrop/api.sock")
SIGNDROP = os.environ.get("SIGNDROP", "/usr/bin/signdrop")
# Seconds that the daemon gives a directory; a request takes a little longer at the most.
PATIENCE = 3600


class _Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(API.removeprefix("unix:"))


def _request(method, path, body=None):
    """The status, and what the answer holds. OSError and HTTPException where the daemon cannot be reached."""
    connection = _Connection("signdrop", timeout=PATIENCE + 60)
    try:
        body = None if body is None else json.dumps(body)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _ask(error, what, *request):
    try:
        return _request(*request)
    except (OSError, http.client.HTTPException) as cause:
        raise error(f"{what}: cannot reach signdrop at {API}: {cause}") from cause


def _detail(text):
    try:
        return json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        return text.strip()


def create_gpg_email(username, projectname, domain):
    """The e-mail that names a project's key."""
    return f"{username}#{projectname}@copr.{domain}"


def create_user_keys(username, projectname, opts, try_indefinitely=False):
    """Makes a project's key, unless there is one. signdrop has it on the disk when this returns."""
    del try_indefinitely
    email = create_gpg_email(username, projectname, opts.sign_domain)
    what = f"no key for {email}"
    wish = {"identity": email, "name": f"{username}_{projectname}"}
    status, text = _ask(CoprKeygenRequestError, what, "POST", "/v1/keys", wish)
    if status not in (200, 201):
        raise CoprKeygenRequestError(f"{what}: {_detail(text)}")


def get_pubkey(username, projectname, log, sign_domain, outfile=None):
    """The project's public key, armoured. `outfile` is what signdrop's `public_key` writes by itself."""
    email = create_gpg_email(username, projectname, sign_domain)
    what = f"no public key of {email}"
    status, text = _ask(CoprSignError, what, "GET", f"/v1/keys/{quote(email, safe='')}/public.asc")
    if status == 404:
        raise CoprSignNoKeyError(f"{what}: {_detail(text)}")
    if status != 200:
        raise CoprSignError(f"{what}: {_detail(text)}")
    if outfile:
        _put(outfile, text)
    log.debug("public key of %s", email)
    return text


def sign_rpms_in_dir(username, projectname, path, chroot, opts, log):
    """Returns when every package below the directory is signed; CoprSignError names those that could not be."""
    if not _packages(path):
        return
    wish = {"paths": [os.path.abspath(path)], "timeout": PATIENCE}
    status, text = _ask(CoprSignError, f"{path} is not signed", "POST", "/v1/wait", wish)
    if status == 404 and "is in no drop directory" in _detail(text):
        create_user_keys(username, projectname, opts)
        email = create_gpg_email(username, projectname, opts.sign_domain)
        _signdrop(path, log, "sign", "-u", email, "--digest", _digest(chroot))
        return
    if status != 200:
        raise CoprSignError(f"{path} is not signed: {_detail(text)}")
    answer = json.loads(text)
    if answer["failed"]:
        failed = "; ".join(f"{each['path']}: {each['reason']}" for each in answer["failed"])
        raise CoprSignError(f"not signed: {failed}")
    if answer["found"] < len(_packages(path)):
        raise CoprSignError(f"{path}: signdrop's configuration ignores packages in it")
    if answer["state"] != "settled":
        raise CoprSignError(f"{path}: {answer['settled']} of {answer['found']} packages are signed")
    log.info("%s packages of %s are signed", answer["found"], path)


def unsign_rpms_in_dir(path, opts, log):
    """Removes all signatures. Below the results tree the packages are signed anew at once."""
    del opts
    if _packages(path):
        _signdrop(path, log, "unsign")


def resign_rpms_in_dir(username, projectname, path, chroot, opts, log):
    """Gives packages that carry another project's signatures this project's."""
    if opts.do_sign:
        # Foreign signatures do not survive it.
        sign_rpms_in_dir(username, projectname, path, chroot, opts, log)
    else:
        unsign_rpms_in_dir(path, opts, log)


def _put(path, text):
    """Writes a file that others may be reading; one that has the text already is left alone."""
    try:
        with open(path, encoding="utf-8") as present:
            if present.read() == text:
                return
    except FileNotFoundError:
        pass
    beside = f"{os.path.dirname(os.path.abspath(path))}/.{os.path.basename(path)}.{os.getpid()}"
    with open(beside, "w", encoding="utf-8") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.replace(beside, path)


def _packages(path):
    return [entry.path for entry in os.scandir(path) if entry.name.endswith(".rpm")]


def _signdrop(path, log, *words):
    """One call for all packages of a directory, with this program's rights."""
    words = [SIGNDROP, *words, "--", *_packages(path)]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        reasons = "; ".join(done.stderr.strip().splitlines())
        raise CoprSignError(f"{' '.join(words[:2])} failed for {path}: {reasons}")
    log.info("%s: %s", path, done.stdout.strip())


def _digest(chroot):
    """SHA-1 where a chroot's tools verify nothing better; the rules of signdrop.toml say the same for the results tree."""
    name, version = chroot.split("-")[0], chroot.split("-")[-2]
    if name in ("epel", "rhel", "centos", "oraclelinux") and version.isdecimal() and int(version) <= 4:
        return "sha1"
    if name == "fedora" and version.isdecimal() and int(version) < 27:
        return "sha1"
    return "sha256"
