//! The listener for obs-sign's clients: bytes in, bytes out, and what gpgv makes of the signatures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use common::{
    daemon::{Daemon, PATIENCE, free_port},
    run,
};
use openssl::hash::{MessageDigest, hash};
use signdrop::obs::{
    reply::Reply,
    request::{Form, Request},
};

const TOOLS: &str = "@group#tools@copr.example.org";

/// A daemon that listens for obs-sign's clients, with one key, and its port.
fn start(options: &str, algorithm: &str) -> (Daemon, u16) {
    let mut daemon = Daemon::prepare("");
    let port = free_port();
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace(
        "[keys]",
        &format!("[obs]\nlisten = \"tcp:127.0.0.1:{port}\"\n{options}\n[keys]"),
    ));
    daemon.run();
    let output = daemon.signdrop(["key", "generate", TOOLS, "--algorithm", algorithm]);
    assert!(output.status.success(), "{output:?}");
    (daemon, port)
}

/// The older form of a request.
fn old(user: impl AsRef<[u8]>, argument: impl AsRef<[u8]>) -> Vec<u8> {
    let (user, argument) = (user.as_ref(), argument.as_ref());
    let lengths = [user.len(), argument.len()].map(|len| (len as u16).to_be_bytes());
    [lengths.as_flattened(), user, argument].concat()
}

/// The newer form.
fn new(arguments: &[&str]) -> Vec<u8> {
    let number = |number: usize| (number as u16).to_be_bytes();
    let mut body = number(arguments.len()).to_vec();
    body.extend(arguments.iter().flat_map(|argument| number(argument.len())));
    body.extend(arguments.iter().flat_map(|argument| argument.bytes()));
    [&number(body.len())[..], &[0, 0], &body].concat()
}

/// A request for a key that the client keeps.
fn keygen(kind: &str, days: &str, name: &str, email: &str) -> Vec<u8> {
    new(&["keygen", TOOLS, kind, days, name, email])
}

/// Sends bytes, and answers all that come until the daemon closes the connection.
fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Status, output and error text.
fn understood(answer: &[u8]) -> (u16, Vec<u8>, String) {
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let (output, error) = answer[6..].split_at(number(2).into());
    assert_eq!(error.len(), usize::from(number(4)), "{answer:?}");
    (
        number(0),
        output.to_vec(),
        String::from_utf8(error.to_vec()).unwrap(),
    )
}

/// The values of an answer of the newer form.
fn values(output: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([output[at], output[at + 1]]));
    let count = number(0);
    let mut rest = &output[2 + 2 * count..];
    let values = (0..count).map(|place| {
        let (value, behind) = rest.split_at(number(2 + 2 * place));
        rest = behind;
        value.to_vec()
    });
    values.collect()
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(now.as_secs()).unwrap()
}

/// A digest argument as clients send it: over the content and, for version 3, the trailer.
fn argument(algorithm: MessageDigest, content: &[u8], hashed: &[u8], trailer: &[u8]) -> String {
    let hash = hash(algorithm, &[content, hashed].concat()).unwrap();
    format!("{}@{}", hex::encode(hash), hex::encode(trailer))
}

fn trailer(created: u32) -> Vec<u8> {
    [&[0][..], &created.to_be_bytes()].concat()
}

/// Whether gpgv finds the signature packet good.
fn gpgv(daemon: &Daemon, packet: &[u8], content: &[u8]) -> (bool, String) {
    gpgv_with(daemon, &daemon.export(TOOLS), packet, content)
}

fn gpgv_with(daemon: &Daemon, key: &str, packet: &[u8], content: &[u8]) -> (bool, String) {
    let path = |name: &str| daemon.dir.path().join(name);
    fs::write(path("key.asc"), key).unwrap();
    fs::write(path("content.sig"), packet).unwrap();
    fs::write(path("content"), content).unwrap();
    let output = run(Command::new("gpg")
        .args(["--batch", "--yes", "--dearmor", "-o"])
        .arg(path("key.gpg"))
        .arg(path("key.asc")));
    assert!(output.status.success(), "{output:?}");
    let output = run(Command::new("gpgv")
        .arg("--keyring")
        .arg(path("key.gpg"))
        .arg(path("content.sig"))
        .arg(path("content")));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn ping_and_public_key_are_answered_in_both_forms() {
    let (daemon, port) = start("ports = \"any\"", "ed25519");
    let armour = daemon.export(TOOLS);
    let length = (armour.len() as u16).to_be_bytes();
    let behind_count = ((armour.len() + 4) as u16).to_be_bytes();
    let plain = [&[0, 0][..], &length, &[0, 0], armour.as_bytes()].concat();
    let counted = [
        &[0, 0][..],
        &behind_count,
        &[0, 0, 0, 1],
        &length,
        armour.as_bytes(),
    ]
    .concat();
    let hashed = format!("SHA512:{TOOLS}");
    for (request, answer) in [
        (vec![0; 4], vec![0; 6]),
        (new(&["ping"]), vec![0, 0, 0, 2, 0, 0, 0, 0]),
        (new(&["ping", ""]), vec![0, 0, 0, 2, 0, 0, 0, 0]),
        (old(TOOLS, "PUBKEY"), plain.clone()),
        (old(TOOLS, "SHA256:PUBKEY"), plain),
        (new(&["pubkey", TOOLS]), counted.clone()),
        (new(&["pubkey", &hashed]), counted),
    ] {
        assert_eq!(exchange(port, &request), answer, "{request:?}");
    }
}

#[test]
fn a_digest_gets_a_version_3_packet_that_gpgv_verifies_and_from_which_clients_make_one_of_version_4()
 {
    let (daemon, port) = start("ports = \"any\"", "rsa2048");
    let output = daemon.signdrop(["key", "show", TOOLS, "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fingerprint = hex::decode(shown["fingerprint"].as_str().unwrap()).unwrap();
    let content = b"content";
    let created = now();
    let trailer = trailer(created);
    for (name, algorithm, number) in [
        ("", MessageDigest::sha1(), 2),
        ("SHA1:", MessageDigest::sha1(), 2),
        ("SHA256:", MessageDigest::sha256(), 8),
        ("SHA384:", MessageDigest::sha384(), 9),
        ("SHA512:", MessageDigest::sha512(), 10),
    ] {
        let wanted = argument(algorithm, content, &trailer, &trailer);
        let (status, packet, error) =
            understood(&exchange(port, &old(TOOLS, format!("{name}{wanted}"))));
        assert_eq!((status, error.as_str()), (0, ""), "{name}");
        // Tag, length, version 3, 5 hashed bytes, key id, RSA, hash algorithm, left of the hash.
        let left = hex::decode(&wanted[..4]).unwrap();
        let length = ((packet.len() - 3) as u16).to_be_bytes();
        let head = [
            &[0x89][..],
            &length,
            &[3, 5],
            &trailer,
            &fingerprint[12..],
            &[1, number],
            &left,
        ]
        .concat();
        assert_eq!(packet[..head.len()], head, "{name}");
        let (good, said) = gpgv(&daemon, &packet, content);
        assert!(
            good || number == 2 && said.contains("digest algorithm"),
            "{name}: {said}"
        );
        let (good, said) = gpgv(&daemon, &packet, b"other content");
        assert!(!good, "{said}");
    }

    // What `sign -4` does: it hashes the trailer of version 4, and puts the numbers into a packet of its own.
    let fingerprint = [&[22, 33, 4][..], &fingerprint].concat();
    let hashed = [&[5, 2][..], &created.to_be_bytes(), &fingerprint].concat();
    let head = [
        &[4, 0, 1, 8][..],
        &(hashed.len() as u16).to_be_bytes(),
        &hashed,
    ]
    .concat();
    let v4 = [&head[..], &[4, 255], &(head.len() as u32).to_be_bytes()].concat();
    let wanted = argument(MessageDigest::sha256(), content, &v4, &trailer);
    let user = format!("SHA256:{TOOLS}");
    let (status, output, error) =
        understood(&exchange(port, &new(&["sign", &user, &wanted, &wanted])));
    assert_eq!((status, error.as_str()), (0, ""));
    let packets = values(&output);
    assert_eq!(packets.len(), 2);
    for packet in packets {
        let body = [&head[..], &[0, 0], &packet[20..]].concat();
        let packet = [&[0x89][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let (good, said) = gpgv(&daemon, &packet, content);
        assert!(good, "{said}");
    }
    let log = daemon.log();
    assert!(
        log.contains(&wanted[..64]) && log.contains("purpose=\"OpenPgp\""),
        "{log}"
    );
}

#[test]
fn every_kind_of_key_signs_and_the_probe_tells_which_it_is() {
    for (algorithm, number, digest) in [
        ("rsa2048", 1, "SHA256"),
        ("ed25519", 22, "SHA256"),
        ("nistp256", 19, "SHA256"),
        ("nistp384", 19, "SHA384"),
    ] {
        let (daemon, port) = start("ports = \"any\"", algorithm);
        let (hash, len) = match digest {
            "SHA256" => (MessageDigest::sha256(), 32),
            _ => (MessageDigest::sha384(), 48),
        };
        let output = daemon.signdrop(["key", "show", TOOLS, "--json"]);
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let fingerprint = hex::decode(shown["fingerprint"].as_str().unwrap()).unwrap();

        let probe = format!("{digest}:{}@00{:08x}", "04".repeat(len), now());
        let (status, packet, error) = understood(&exchange(port, &old(TOOLS, &probe)));
        assert_eq!((status, error.as_str()), (0, ""), "{algorithm}");
        assert_eq!((packet[3], packet[5]), (4, number), "{algorithm}");
        fs::write(daemon.dir.path().join("probe"), &packet).unwrap();
        let output = run(Command::new("gpg")
            .args(["--batch", "--list-packets", "--homedir"])
            .arg(daemon.dir.path())
            .arg(daemon.dir.path().join("probe")));
        let said = String::from_utf8(output.stdout).unwrap();
        for wanted in [
            "version 4",
            &format!("issuer fpr v4 {}", hex::encode_upper(&fingerprint)),
            &format!("keyid {}", hex::encode_upper(&fingerprint[12..])),
        ] {
            assert!(said.contains(wanted), "{algorithm}: {said}");
        }

        let created = now();
        let head = [
            &[4, 0, number, if len == 32 { 8 } else { 9 }, 0, 6, 5, 2][..],
            &created.to_be_bytes(),
        ]
        .concat();
        let v4 = [&head[..], &[4, 255], &(head.len() as u32).to_be_bytes()].concat();
        let wanted = argument(hash, b"content", &v4, &trailer(created));
        let (status, packet, error) =
            understood(&exchange(port, &old(TOOLS, format!("{digest}:{wanted}"))));
        assert_eq!((status, error.as_str()), (0, ""), "{algorithm}");
        let issuer = [&[9, 16][..], &fingerprint[12..]].concat();
        let body = [&head[..], &[0, 10], &issuer, &packet[20..]].concat();
        let packet = [&[0x89][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let (good, said) = gpgv(&daemon, &packet, b"content");
        assert!(good, "{algorithm}: {said}");

        // A hash that is too weak for the key is refused, not signed.
        if algorithm != "rsa2048" {
            let weak = argument(MessageDigest::sha1(), b"", b"", &trailer(created));
            let (status, _, error) = understood(&exchange(port, &old(TOOLS, &weak)));
            assert_eq!(status, 1);
            assert!(error.contains("too weak"), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_is_answered_with_status_1_and_a_line_that_says_it() {
    let (daemon, port) = start("ports = \"any\"", "rsa2048");
    let good = argument(MessageDigest::sha256(), b"", b"", &trailer(now()));
    let sha256 = format!("SHA256:{good}");
    let user = format!("SHA256:{TOOLS}");
    let nobody = "bob#new@copr.example.org";
    let long = "a".repeat(64 << 10);
    let many: Vec<&str> = ["sign", &user]
        .into_iter()
        .chain([good.as_str(); 65])
        .collect();
    let mut gap = new(&["pubkey", TOOLS]);
    gap[7] += 1;
    for (request, wanted) in [
        // Users.
        (
            old(nobody, "PUBKEY"),
            "unknown key: bob#new@copr.example.org\n",
        ),
        (
            old(nobody, &sha256),
            "unknown key: bob#new@copr.example.org\n",
        ),
        (
            new(&["pubkey", nobody]),
            "unknown key: bob#new@copr.example.org\n",
        ),
        (
            new(&["sign", &format!("SHA256:{nobody}"), &good]),
            "unknown key: bob#new@copr.example.org\n",
        ),
        (old("nobody", "PUBKEY"), "unknown key: nobody\n"),
        (
            old(TOOLS.to_uppercase(), "PUBKEY"),
            "unknown key: @GROUP#TOOLS@COPR.EXAMPLE.ORG\n",
        ),
        (
            old(&TOOLS[1..], "PUBKEY"),
            "unknown key: group#tools@copr.example.org\n",
        ),
        (old("", "PUBKEY"), "illegal user\n"),
        (old(".x", "PUBKEY"), "illegal user\n"),
        (old("../x", "PUBKEY"), "illegal user\n"),
        (old("a/b@example.org", "PUBKEY"), "illegal user\n"),
        (new(&["pubkey", ""]), "illegal user\n"),
        (new(&["sign", "SHA256:", &good]), "illegal user\n"),
        (old("a\nb@example.org", "PUBKEY"), "illegal characters"),
        (old("a\0", "PUBKEY"), "illegal characters"),
        (old(b"\xff\xfe", "PUBKEY"), "illegal characters"),
        (old(TOOLS, "PUBKEY\n"), "illegal characters"),
        (old(&long[..65535], "PUBKEY"), "unknown key: aaaa"),
        // Hashes.
        (old(TOOLS, &good), "bad digest"),
        (old(TOOLS, format!("SHA512:{good}")), "bad digest"),
        (
            old(TOOLS, format!("MD5:{good}")),
            "unknown hash algorithm: MD5\n",
        ),
        (
            old(TOOLS, format!("RIPEMD160:{good}")),
            "unknown hash algorithm: RIPEMD160\n",
        ),
        (old(TOOLS, format!("sha256:{good}")), "bad digest"),
        (old(TOOLS, format!(":{good}")), "bad digest"),
        (old(TOOLS, &sha256[..sha256.len() - 1]), "bad digest"),
        (old(TOOLS, format!("{sha256}00")), "bad digest"),
        (old(TOOLS, sha256.replace('@', "")), "bad digest"),
        (old(TOOLS, sha256.replace('@', "@@")), "bad digest"),
        (old(TOOLS, sha256.replace('@', "0@")), "bad digest"),
        (old(TOOLS, sha256.replace("@0", "@g")), "bad digest"),
        (old(TOOLS, "pubkey"), "bad digest"),
        (old(TOOLS, "@0000000000"), "bad digest"),
        (new(&["sign", &user, "SHA256:x"]), "bad digest"),
        (new(&["sign", &user, &good, &good[1..]]), "bad digest"),
        // Commands and forms.
        (new(&["sign"]), "wrong number of arguments for sign\n"),
        (
            new(&["sign", &user]),
            "wrong number of arguments for sign\n",
        ),
        (new(&many), "wrong number of arguments for sign\n"),
        (new(&["pubkey"]), "wrong number of arguments for pubkey\n"),
        (
            new(&["pubkey", TOOLS, TOOLS]),
            "wrong number of arguments for pubkey\n",
        ),
        (new(&["Sign", &user, &good]), "unknown command: Sign\n"),
        (new(&[""]), "unknown command: \n"),
        (
            new(&["certgen", &user, "rsa@2048", "1", "a", "b@c"]),
            "unknown command: certgen\n",
        ),
        // Keys that clients keep.
        (new(&["keygen"]), "wrong number of arguments for keygen\n"),
        (
            new(&["keygen", TOOLS, "rsa@2048", "1", "a"]),
            "wrong number of arguments for keygen\n",
        ),
        (
            keygen("rsa@1024", "1", "a", "b@c"),
            "unknown key type: rsa@1024",
        ),
        (
            keygen("rsa2048", "1", "a", "b@c"),
            "unknown key type: rsa2048",
        ),
        (
            keygen("dsa@2048", "1", "a", "b@c"),
            "unknown key type: dsa@2048",
        ),
        (keygen("", "1", "a", "b@c"), "unknown key type: "),
        (keygen("ed25519", "soon", "a", "b@c"), "bad expiry: soon"),
        (keygen("ed25519", "-1", "a", "b@c"), "bad expiry: -1"),
        (
            keygen("ed25519", "60000", "a", "b@c"),
            "a key is valid for 1 day",
        ),
        (
            keygen("ed25519", "99999999999999999999", "a", "b@c"),
            "bad expiry",
        ),
        (keygen("ed25519", "1", "", "b@c"), "a name has 1 to"),
        (keygen("ed25519", "1", "a<b>", "b@c"), "a name has 1 to"),
        (keygen("ed25519", "1", "a\nb", "b@c"), "illegal characters"),
        (keygen("ed25519", "1", "a", "b"), "bad e-mail"),
        (keygen("ed25519", "1", "a", "b c@d"), "bad e-mail"),
        (
            new(&["keygen", "../x", "ed25519", "1", "a", "b@c"]),
            "illegal user\n",
        ),
        (
            new(&["keygen", "nobody", "ed25519", "1", "a", "b@c"]),
            "unknown key: nobody\n",
        ),
        (
            new(&["privsign", &user, "00"]),
            "wrong number of arguments for privsign\n",
        ),
        (new(&["privsign", &user, "00", &good]), "bad private key"),
        (new(&["privsign", &user, "0", &good]), "bad private key"),
        (new(&["privsign", &user, "", &good]), "bad private key"),
        (
            new(&["privsign", &user, &"01".repeat(30_000), &good]),
            "bad private key",
        ),
        (new(&[]), "malformed request\n"),
        (vec![0, 1, 0, 0, 0], "malformed request\n"),
        (vec![0, 2, 0, 0, 255, 255], "malformed request\n"),
        (vec![0, 4, 0, 0, 0, 1, 255, 255], "malformed request\n"),
        (gap, "malformed request\n"),
        (
            [&[0, 9, 0, 0][..], &new(&["ping"])[4..], &[0]].concat(),
            "malformed request\n",
        ),
    ] {
        let answer = exchange(port, &request);
        let (status, output, error) = understood(&answer);
        assert_eq!((status, output.len()), (1, 0), "{request:?}: {error}");
        assert!(
            error.starts_with(wanted) && error.ends_with('\n'),
            "{request:?}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.len() < 1000, "{error}");
    }
    // Nothing of it did harm, or came into the log as another line.
    assert_eq!(exchange(port, &[0; 4]), [0; 6]);
    assert!(!daemon.log().contains("a\nb@example.org"));
}

#[test]
fn half_requests_and_a_thousand_idle_connections_keep_nobody_out() {
    let (daemon, port) = start("ports = \"any\"", "ed25519");
    let whole = old(TOOLS, "PUBKEY");
    // The end of the stream comes instead of the rest.
    for len in 0..whole.len() {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&whole[..len]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty(), "{len}: {answer:?}");
    }
    let idle: Vec<TcpStream> = (0..1000)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&whole[..number % 5]).unwrap();
            stream
        })
        .collect();
    // The other doors do not even notice.
    assert_eq!(daemon.request("GET", "/ping", None).0, 200);
    let (status, output, _) = understood(&exchange(port, &whole));
    assert_eq!((status, output), (0, daemon.export(TOOLS).into_bytes()));
    for mut stream in idle {
        // Closed by now or soon, without an answer; or reset, with what had not been read.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        assert!(answer.is_empty(), "{answer:?}");
    }
}

/// Clients that have asked for keys and not read their answers yet.
fn makers(port: u16, kind: &str, count: usize) -> Vec<TcpStream> {
    let request = keygen(kind, "1", "name", "mail@example.org");
    let ask = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request).unwrap();
        stream
    };
    (0..count).map(ask).collect()
}

#[test]
fn signatures_do_not_wait_for_keys_that_are_being_made() {
    const MAKERS: usize = 24;
    let (_daemon, port) = start("ports = \"any\"", "rsa2048");
    let makers = makers(port, "rsa@2048", MAKERS);
    let trailer = trailer(now());
    let wanted = argument(MessageDigest::sha256(), b"content", &trailer, &trailer);
    let (status, ..) = understood(&exchange(port, &old(TOOLS, format!("SHA256:{wanted}"))));
    assert_eq!(status, 0);
    let waiting = makers.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let waits = stream.peek(&mut [0]).is_err();
        stream.set_nonblocking(false).unwrap();
        waits
    });
    // More than there are places for signatures.
    assert!(waiting.count() > 16, "it waited for keys");
    for mut stream in makers {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(understood(&answer).0, 0, "each key is made");
    }
}

#[test]
fn clients_that_want_very_many_keys_are_told_to_try_again() {
    const MAKERS: usize = 240;
    let (_daemon, port) = start("ports = \"any\"", "ed25519");
    let makers = makers(port, "rsa@3072", MAKERS);
    let (mut made, mut refused) = (0, 0);
    for mut stream in makers {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        match understood(&answer) {
            (0, ..) => made += 1,
            (1, _, text) => {
                assert_eq!(text, "too many keys are being made: try again\n");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(made >= 32, "{made}");
    assert!(refused > 100, "{refused}");
}

/// What a client gets that comes from an address and port of its choice.
fn exchange_from(address: &str, port: u16, to: u16) -> Vec<u8> {
    let script = "import socket, sys\n\
                  s = socket.socket()\n\
                  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                  s.bind((sys.argv[1], int(sys.argv[2])))\n\
                  s.settimeout(60)\n\
                  s.connect(('127.0.0.1', int(sys.argv[3])))\n\
                  answer = b''\n\
                  try:\n    \
                      s.sendall(bytes(4))\n    \
                      while chunk := s.recv(100): answer += chunk\n\
                  except (ConnectionResetError, BrokenPipeError): pass\n\
                  sys.stdout.buffer.write(answer)\n";
    let output = run(Command::new("python3")
        .args(["-c", script, address])
        .args([port.to_string(), to.to_string()]));
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn only_allowed_addresses_and_ports_are_answered_and_a_reload_changes_them() {
    let (daemon, port) = start("allow = [\"127.0.0.0/30\"]", "ed25519");
    for (address, from, allowed) in [
        ("127.0.0.1", 851, true),
        ("127.0.0.2", 852, true),
        ("127.0.0.4", 854, false),
        ("127.0.0.1", 0, false),
    ] {
        let answer = exchange_from(address, from, port);
        let wanted = if allowed { &[0; 6][..] } else { &[] };
        assert_eq!(answer, wanted, "{address}:{from}");
    }
    assert!(daemon.log().contains("turned away"), "{}", daemon.log());

    let mut daemon = daemon;
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("[\"127.0.0.0/30\"]", "[\"127.0.0.4\"]\nports = \"any\""));
    daemon.signal("HUP");
    daemon.until("reloaded", |_| {
        exchange_from("127.0.0.4", 0, port) == [0; 6]
    });
    assert!(exchange_from("127.0.0.1", 855, port).is_empty());
    let output = daemon.signdrop([Path::new("check"), Path::new("-c"), &daemon.config()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("tcp:127.0.0.1:{port}")), "{said}");
}

#[test]
fn a_deleted_key_signs_for_no_client() {
    let (daemon, port) = start("ports = \"any\"", "ed25519");
    let wanted = argument(MessageDigest::sha256(), b"", b"", &trailer(now()));
    let request = old(TOOLS, format!("SHA256:{wanted}"));
    assert_eq!(understood(&exchange(port, &request)).0, 0);
    let output = daemon.signdrop(["key", "delete", "--yes", TOOLS]);
    assert!(output.status.success(), "{output:?}");
    let (status, _, error) = understood(&exchange(port, &request));
    assert_eq!((status, error), (1, format!("unknown key: {TOOLS}\n")));
}

#[test]
fn a_key_that_its_client_keeps_signs_with_it_and_not_without_for_its_user_alone_and_for_this_daemon_alone()
 {
    let (daemon, port) = start("ports = \"any\"", "ed25519");
    for (kind, number) in [
        ("rsa@2048", 1),
        ("rsa@3072", 1),
        ("rsa@4096", 1),
        ("ed25519", 22),
        ("nistp256", 19),
        ("nistp384", 19),
    ] {
        let request = keygen(kind, "30", "Project's key", "lent@example.org");
        let (status, output, error) = understood(&exchange(port, &request));
        assert_eq!((status, error.as_str()), (0, ""), "{kind}");
        let made: Vec<String> = values(&output)
            .into_iter()
            .map(|value| String::from_utf8(value).unwrap())
            .collect();
        let [public, private] = made.as_slice() else {
            panic!("{kind}: {made:?}");
        };
        let shown = run(Command::new("gpg")
            .args(["--batch", "--show-keys", "--with-colons", "--homedir"])
            .arg(daemon.dir.path())
            .arg({
                let path = daemon.dir.path().join("public.asc");
                fs::write(&path, public).unwrap();
                path
            }));
        let shown = String::from_utf8(shown.stdout).unwrap();
        let fields: Vec<&str> = shown.lines().next().unwrap().split(':').collect();
        let seconds = |field: usize| fields[field].parse::<u64>().unwrap();
        assert_eq!(seconds(6) - seconds(5), 30 * 86400, "{shown}");
        assert!(
            shown.contains("Project's key <lent@example.org>"),
            "{shown}"
        );
        // No part of the private key is to be read in what the client keeps, but for what the public key says.
        assert!(hex::decode(private).is_ok(), "{private}");
        assert_eq!(daemon.status()["keys"], 1, "the daemon keeps nothing of it");

        let (name, hash, len) = match kind {
            "nistp384" => ("SHA384", MessageDigest::sha384(), 48),
            _ => ("SHA256", MessageDigest::sha256(), 32),
        };
        let user = format!("{name}:{TOOLS}");
        let created = now();
        let probe = format!("{}@00{created:08x}", "04".repeat(len));
        // The hash of what a version 4 packet without issuer begins with.
        let head = [
            &[4, 0, number, if len == 32 { 8 } else { 9 }, 0, 6, 5, 2][..],
            &created.to_be_bytes(),
        ]
        .concat();
        let v4 = [&head[..], &[4, 255], &(head.len() as u32).to_be_bytes()].concat();
        let wanted = argument(hash, b"content", &v4, &trailer(created));
        let request = new(&["privsign", &user, private, &probe, &wanted]);
        let (status, output, error) = understood(&exchange(port, &request));
        assert_eq!((status, error.as_str()), (0, ""), "{kind}");
        let packets = values(&output);
        assert_eq!((packets[0][3], packets[0][5]), (4, number), "{kind}");
        let issuer = [&[9, 16][..], &packets[1][10..18]].concat();
        let body = [&head[..], &[0, 10], &issuer, &packets[1][20..]].concat();
        let packet = [&[0x89][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let (good, said) = gpgv_with(&daemon, public, &packet, b"content");
        assert!(good, "{kind}: {said}");

        // Another user, a changed byte, another daemon: nothing is signed.
        let (other, other_port) = start("ports = \"any\"", "ed25519");
        let mut changed = private.clone().into_bytes();
        let last = changed.len() - 1;
        changed[last] = if changed[last] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).unwrap();
        let mut other_public = private.clone().into_bytes();
        // In the certificate's first packet.
        other_public[40] = if other_public[40] == b'0' { b'1' } else { b'0' };
        let other_public = String::from_utf8(other_public).unwrap();
        let strange = format!("{name}:else@example.org");
        for (port, user, private) in [
            (port, &strange, private),
            (port, &user, &changed),
            (port, &user, &other_public),
            (other_port, &user, private),
        ] {
            let request = new(&["privsign", user, private, &wanted]);
            let (status, output, error) = understood(&exchange(port, &request));
            assert_eq!((status, output.len()), (1, 0), "{kind}");
            assert!(error.contains("bad private key"), "{kind}: {error}");
        }
        drop(other);
        assert!(!daemon.log().contains(&private[..64]), "{kind}");
    }
    assert!(daemon.log().contains("made for a client to keep"));
}

/// Requests that are changed at random, always the same ones, are understood as what they say or refused: never a panic, never a
/// request that says something else when it is written again.
#[test]
fn no_bytes_make_the_reader_of_requests_stumble() {
    let digest = argument(MessageDigest::sha256(), b"", b"", &trailer(7));
    let user = format!("SHA256:{TOOLS}");
    let seeds = [
        vec![0; 4],
        old(TOOLS, "PUBKEY"),
        old(TOOLS, format!("SHA256:{digest}")),
        new(&["ping"]),
        new(&["pubkey", TOOLS]),
        new(&["sign", &user, &digest]),
        new(&["sign", &user, &digest, &digest, &digest]),
        new(&["privsign", &user, "0102", &digest]),
        keygen("rsa@4096", "365", "name", "mail@example.org"),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let (mut understood, mut refused) = (0, 0);
    for round in 0..200_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(6) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, random(256) as u8),
                4 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
            bytes.resize(bytes.len().max(4), 0);
        }
        let (head, body) = bytes.split_first_chunk::<4>().unwrap();
        match Request::parse(*head, body) {
            Ok(request) => {
                understood += 1;
                let done = Reply::Done {
                    form: request.form,
                    values: vec![body.to_vec()],
                };
                let answer = done.to_bytes();
                let (status, output, _) = self::understood(&answer);
                let value = match request.form {
                    Form::Old => output,
                    Form::New => values(&output).remove(0),
                };
                assert_eq!((status, value.as_slice()), (0, body));
                assert_eq!(body.len(), signdrop::obs::request::body_len(*head));
            }
            Err(error) => {
                refused += 1;
                let bytes = Reply::Failed(error.to_string()).to_bytes();
                let (status, output, said) = self::understood(&bytes);
                assert_eq!((status, output.len(), said), (1, 0, format!("{error}\n")));
            }
        }
    }
    assert!(
        understood > 1000 && refused > 1000,
        "{understood} {refused}"
    );
}

#[test]
fn check_warns_where_reserved_ports_are_open_to_every_user_of_the_machine() {
    let daemon = Daemon::prepare("");
    let config = fs::read_to_string(daemon.config()).unwrap();
    let checked = |ports: &str, first: u16| {
        let obs = format!("[obs]\nlisten = \"tcp:127.0.0.1:5167\"\nports = {ports:?}\n[keys]");
        daemon.write_config(&config.replace("[keys]", &obs));
        // The setting belongs to a network namespace, and goes with it.
        let output = run(Command::new("unshare")
            .args(["--net", "sh", "-c"])
            .arg("echo \"$1\" > /proc/sys/net/ipv4/ip_unprivileged_port_start && exec \"$0\" check -c \"$2\"")
            .arg(env!("CARGO_BIN_EXE_signdrop"))
            .arg(first.to_string())
            .arg(daemon.config()));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (ports, first, warned) in [
        ("reserved", 0, true),
        ("reserved", 1023, true),
        ("reserved", 1024, false),
        ("any", 0, false),
    ] {
        let said = checked(ports, first);
        assert!(said.contains("obs-sign's clients"), "{said}");
        let warning = said.contains("ip_unprivileged_port_start");
        assert_eq!(warning, warned, "{ports} {first}: {said}");
    }
}
