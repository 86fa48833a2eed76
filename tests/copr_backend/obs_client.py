"""
A client of obs-sign's protocol, as small as can be: it hashes a file and the trailer of a version 4 signature, has the hash signed, and puts the
packet together. rpmsign calls it in the place of gpg.

usage: obs_client.py PORT USER pubkey
       obs_client.py PORT USER sign FILE SIGNATURE
"""

import hashlib
import socket
import struct
import sys
import time


def ask(port, *arguments):
    """The values of the answer; ends with the daemon's status and message where it refuses."""
    words = [argument.encode() for argument in arguments]
    body = struct.pack(f">{len(words) + 1}H", len(words), *map(len, words)) + b"".join(words)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(struct.pack(">HH", len(body), 0) + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    status, output, error = struct.unpack_from(">HHH", answer)
    if status:
        sys.stderr.write(answer[6 + output :].decode())
        sys.exit(status)
    output = answer[6 : 6 + output]
    (count,) = struct.unpack_from(">H", output)
    lengths = struct.unpack_from(f">{count}H", output, 2)
    values, at = [], 2 + 2 * count
    for length in lengths:
        values.append(output[at : at + length])
        at += length
    return values


def main():
    port, user, command = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if command == "pubkey":
        sys.stdout.buffer.write(ask(port, "pubkey", user)[0])
        return
    created = struct.pack(">I", int(time.time()))
    trailer = "00" + created.hex()
    (probe,) = ask(port, "sign", f"SHA256:{user}", f"{'04' * 32}@{trailer}")
    # Tag and length, version, class, algorithms; then the hashed area begins with the issuer's fingerprint.
    algorithm, fingerprint = probe[5], probe[12:32]
    hashed = b"\x05\x02" + created + b"\x16\x21\x04" + fingerprint
    head = bytes([4, 0, algorithm, 8]) + struct.pack(">H", len(hashed)) + hashed
    with open(sys.argv[4], "rb") as file:
        content = hashlib.sha256()
        while chunk := file.read(65536):
            content.update(chunk)
    content.update(head + b"\x04\xff" + struct.pack(">I", len(head)))
    (packet,) = ask(port, "sign", f"SHA256:{user}", f"{content.hexdigest()}@{trailer}")
    # Behind tag, length and 17 bytes of version 3: the hash's first two bytes and the numbers.
    unhashed = b"\x09\x10" + fingerprint[-8:]
    body = head + struct.pack(">H", len(unhashed)) + unhashed + packet[20:]
    with open(sys.argv[5], "wb") as file:
        file.write(b"\x89" + struct.pack(">H", len(body)) + body)


main()
