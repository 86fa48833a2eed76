//! The HTTP API through both doors, with curl and with raw sockets that do what no client should.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{
    daemon::{Daemon, Mounted, PATIENCE, free_port},
    quick_package, run,
};
use serde_json::{Value, json};

const OPENAPI: &str = include_str!("../src/http/openapi.json");
const ALICE: &str = "alice#tools@copr.example.org";
const ALICE_ENCODED: &str = "alice%23tools%40copr.example.org";

/// A daemon with a TCP door as well, and its port. Keys are made in no time.
fn with_tcp() -> (Daemon, u16) {
    let mut daemon = Daemon::prepare("");
    let port = listen_too(&daemon, "127.0.0.1");
    daemon.run();
    (daemon, port)
}

fn listen_too(daemon: &Daemon, address: &str) -> u16 {
    let port = free_port();
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(
        &config
            .replace(
                "api.sock\"]",
                &format!("api.sock\", \"tcp:{address}:{port}\"]"),
            )
            .replace("rsa2048", "ed25519"),
    );
    port
}

/// Whom curl talks to.
enum Door<'a> {
    Unix(&'a Path),
    Tcp(u16),
}

#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: String,
    allow: Option<String>,
    body: String,
}

fn curl(door: &Door<'_>, arguments: &[&str], path: &str) -> Answer {
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "--path-as-is", "--max-time", "60"]);
    command.args(["-H", "Expect:"]).args(arguments);
    let host = match door {
        Door::Unix(socket) => {
            command.arg("--unix-socket").arg(socket);
            "signdrop".to_owned()
        }
        Door::Tcp(port) => format!("127.0.0.1:{port}"),
    };
    let output = run(command.arg(format!("http://{host}{path}")));
    assert!(output.status.success(), "{path}: {output:?}");
    answer(&output.stdout)
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        content_type: header("content-type").unwrap_or_default(),
        allow: header("allow"),
        body: body.to_owned(),
    }
}

fn post(body: &str) -> Vec<&str> {
    vec![
        "-H",
        "Content-Type: application/json",
        "--data-binary",
        body,
    ]
}

/// Sends bytes as they are and answers what came until the connection closed.
fn raw(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    // A server that has heard enough may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn unix(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn ping_answers_as_copr_keygen_does() {
    let (daemon, port) = with_tcp();
    let socket = daemon.dir.path().join("api.sock");
    for door in [Door::Unix(&socket), Door::Tcp(port)] {
        let answer = curl(&door, &[], "/ping");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type, "text/plain;charset=UTF-8");
        assert_eq!(answer.body, "pong\n");
    }
}

#[test]
fn gen_key_answers_as_copr_keygen_does() {
    let (daemon, port) = with_tcp();
    let door = Door::Tcp(port);
    let json_type = "Content-Type: application/json";
    let made = curl(
        &door,
        &post(
            r#"{"name_real": "alice_tools", "name_email": "alice#tools@copr.example.org", "key_length": 2048, "expire": 0,
                "name_comment": null}"#,
        ),
        "/gen_key",
    );
    assert_eq!((made.status, made.body.as_str()), (201, ""), "{made:?}");
    assert_eq!(made.content_type, "text/plain;charset=UTF-8");
    let again = curl(
        &door,
        &post(r#"{"name_real": "another name", "name_email": "alice#tools@copr.example.org"}"#),
        "/gen_key",
    );
    assert_eq!((again.status, again.body.as_str()), (200, ""));
    let (_, shown) = daemon.request("GET", &format!("/v1/keys/{ALICE_ENCODED}"), None);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["user_id"], format!("alice_tools <{ALICE}>"));
    assert_eq!(shown["algorithm"], "rsa2048");
    assert_eq!(shown["expires"], Value::Null);

    let form = [
        "--data-urlencode",
        "name_real=group_tools",
        "--data-urlencode",
        "name_email=@group#tools@copr.example.org",
        "--data-urlencode",
        "name_comment=a comment",
        "--data-urlencode",
        "expire=30",
    ];
    assert_eq!(curl(&door, &form, "/gen_key").status, 201);
    assert_eq!(curl(&door, &form, "/gen_key").status, 200);
    let path = "/v1/keys/%40group%23tools%40copr.example.org";
    let shown: Value = serde_json::from_str(&daemon.request("GET", path, None).1).unwrap();
    assert_eq!(
        shown["user_id"],
        "group_tools (a comment) <@group#tools@copr.example.org>"
    );
    let lifetime = shown["expires"].as_u64().unwrap() - shown["created"].as_u64().unwrap();
    assert_eq!(lifetime, 30 * 86400);

    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"text\"",
        "{}",
        r#"{"name_real": "a"}"#,
        r#"{"name_email": "a@b"}"#,
        r#"{"name_real": "", "name_email": "a@b"}"#,
        r#"{"name_real": " ", "name_email": "a@b"}"#,
        r#"{"name_real": "a\nb", "name_email": "a@b"}"#,
        r#"{"name_real": "a<b>", "name_email": "a@b"}"#,
        r#"{"name_real": "a", "name_email": "nobody"}"#,
        r#"{"name_real": "a", "name_email": "@"}"#,
        r#"{"name_real": "a", "name_email": "a b@c"}"#,
        r#"{"name_real": "a", "name_email": "../a@c"}"#,
        r#"{"name_real": "a", "name_email": "a@b", "key_length": 1024}"#,
        r#"{"name_real": "a", "name_email": "a@b", "key_length": "many"}"#,
        r#"{"name_real": "a", "name_email": "a@b", "key_length": 20481}"#,
        r#"{"name_real": "a", "name_email": "a@b", "expire": -1}"#,
        r#"{"name_real": "a", "name_email": "a@b", "expire": 1.5}"#,
        r#"{"name_real": "a", "name_email": "a@b", "expire": "soon"}"#,
        r#"{"name_real": "a", "name_email": "a@b", "expire": 99999999999999999999}"#,
        r#"{"name_real": {}, "name_email": "a@b"}"#,
        r#"{"name_real": true, "name_email": "a@b"}"#,
    ] {
        let answer = curl(&door, &["-H", json_type, "--data-binary", body], "/gen_key");
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(
            answer.content_type.starts_with("text/plain") && !answer.body.trim().is_empty(),
            "{body}: {answer:?}"
        );
    }
    // What is not UTF-8 would otherwise all become the same e-mail.
    let not_utf8 = ["--data-binary", "name_real=%FF%FE&name_email=%FF@%FF"];
    assert_eq!(curl(&door, &not_utf8, "/gen_key").status, 400);
    assert_eq!(daemon.status()["keys"], 2);

    let wrong = curl(&door, &[], "/gen_key");
    assert_eq!((wrong.status, wrong.allow.as_deref()), (405, Some("POST")));
    assert!(wrong.content_type.starts_with("text/plain"), "{wrong:?}");
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let (daemon, port) = with_tcp();
    let big = daemon.dir.path().join("big");
    fs::write(&big, vec![b' '; (1 << 20) + 1]).unwrap();
    let data = format!("@{}", big.display());
    let socket = daemon.dir.path().join("api.sock");
    for (door, path) in [
        (Door::Tcp(port), "/gen_key"),
        (Door::Unix(&socket), "/v1/keys"),
        (Door::Unix(&socket), "/v1/wait"),
    ] {
        assert_eq!(
            curl(&door, &["--data-binary", &data], path).status,
            413,
            "{path}"
        );
    }
    // A length that lies is not believed: neither kept for, nor waited for.
    let head = "POST /gen_key HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\nConnection: close\r\n\r\n";
    let answer = raw(tcp(port), &[head.as_bytes(), &vec![b' '; 2 << 20]].concat());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
}

#[test]
fn tcp_offers_only_what_anybody_may_do() {
    let (daemon, port) = with_tcp();
    let door = Door::Tcp(port);
    daemon.request(
        "POST",
        "/v1/keys",
        Some(&json!({"identity": ALICE}).to_string()),
    );
    let key = format!("/v1/keys/{ALICE_ENCODED}");
    for path in [
        "/ping",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        &format!("{key}/public.asc"),
    ] {
        assert_eq!(curl(&door, &[], path).status, 200, "{path}");
    }
    // What is public is shown, and not made by whoever asks.
    let certificate = format!("{key}/certificate.pem");
    assert_eq!(curl(&door, &[], &certificate).status, 404);
    assert_eq!(daemon.request("GET", &certificate, None).0, 200);
    assert_eq!(curl(&door, &[], &certificate).status, 200);
    for (method, path) in [
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("GET", &*key),
        ("DELETE", &*key),
        ("POST", &*format!("{key}/sign")),
        ("POST", "/v1/wait"),
        ("GET", "/v1/status"),
        ("PUT", "/v1/status"),
    ] {
        let answer = curl(&door, &["-X", method], path);
        assert_eq!(answer.status, 403, "{method} {path}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert!(answer.body.contains("Unix socket"), "{}", answer.body);
    }
    assert_eq!(daemon.request("GET", &key, None).0, 200, "not deleted");
}

#[test]
fn only_listed_users_have_digests_signed_over_the_socket_and_it_is_recorded_for_whom_and_for_what()
{
    let mut daemon = Daemon::prepare("");
    // Whoever it is may open the socket, so that only the list decides.
    let dir = daemon.dir.path().to_owned();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let written = fs::read_to_string(daemon.config()).unwrap();
    let config = |signers: &str| written.replace("[keys]", &format!("signers = {signers}\n[keys]"));
    daemon.write_config(&config("[\"nobody\", 4321]"));
    daemon.run();
    let socket = dir.join("api.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let (status, _) = daemon.request(
        "POST",
        "/v1/keys",
        Some(&json!({ "identity": ALICE }).to_string()),
    );
    assert_eq!(status, 201);

    let certificate = format!("/v1/keys/{ALICE_ENCODED}/certificate.pem");
    assert_eq!(daemon.request("GET", &certificate, None).0, 200);

    let hash = "ab".repeat(32);
    let sign = |user: &str, purpose: &str| {
        let body = format!(r#"{{"digest":"sha256","hash":"{hash}","purpose":"{purpose}"}}"#);
        let output = run(Command::new("setpriv")
            .args([
                "--reuid",
                user,
                "--regid",
                user,
                "--clear-groups",
                "curl",
                "-s",
            ])
            .args(["-w", "%{http_code}", "-o", "/dev/null", "--unix-socket"])
            .arg(&socket)
            .args([
                "-H",
                "Content-Type: application/json",
                "--data-binary",
                &body,
            ])
            .arg(format!("http://d/v1/keys/{ALICE_ENCODED}/sign")));
        String::from_utf8(output.stdout).unwrap()
    };
    for (user, purpose, status) in [
        ("65534", "openpgp", "200"),
        ("4321", "openpgp", "200"),
        ("4321", "cms", "200"),
        ("4321", "anything", "400"),
        ("4322", "openpgp", "403"),
        ("4322", "cms", "403"),
        ("4322", "anything", "403"),
        ("0", "openpgp", "403"),
    ] {
        assert_eq!(sign(user, purpose), status, "{user} {purpose}");
    }
    let log = daemon.log();
    for wanted in [
        "user=4321",
        "purpose=OpenPgp",
        "purpose=Cms",
        &hash,
        "user=4322",
    ] {
        assert!(log.contains(wanted), "{wanted}:\n{log}");
    }

    // An empty list is nobody, no list is everybody.
    for (config, status) in [(config("[]"), "403"), (written.clone(), "200")] {
        daemon.write_config(&config);
        daemon.signal("HUP");
        daemon.until("reloaded", |_| sign("4321", "openpgp") == status);
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    for address in [
        "0.0.0.0",
        "192.0.2.1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "169.254.1.1",
    ] {
        let mut daemon = Daemon::prepare("");
        listen_too(&daemon, address);
        daemon.spawn();
        assert_eq!(daemon.wait_exit().code(), Some(2), "{address}");
        daemon.until_logged("loopback");
    }
}

#[test]
fn an_unknown_path_or_method_is_a_problem_that_says_so() {
    let daemon = Daemon::start("");
    let socket = daemon.dir.path().join("api.sock");
    let door = Door::Unix(&socket);
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/keys/",
        "/v1/keys/a@b/private.asc",
        "/ping/",
        "/PING",
        "//ping",
        "/v1/../ping",
    ] {
        let answer = curl(&door, &[], path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.content_type, "application/problem+json");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], 404);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }
    for (method, path, allowed) in [
        ("POST", "/ping", "GET"),
        ("GET", "/v1/wait", "POST"),
        ("DELETE", "/v1/keys", "GET, POST"),
        ("PUT", "/v1/keys/a@b", "GET, DELETE"),
        ("OPTIONS", "/metrics", "GET"),
        ("BREW", "/v1/status", "GET"),
    ] {
        let answer = curl(&door, &["-X", method], path);
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.allow.as_deref(), Some(allowed), "{method} {path}");
    }
}

#[test]
fn an_email_in_a_path_is_decoded_once_and_only_valid_ones_pass() {
    let daemon = Daemon::prepare("");
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("rsa2048", "ed25519"));
    let mut daemon = daemon;
    daemon.run();
    for identity in [
        ALICE,
        "@group#tools@copr.example.org",
        "percent%41+plus@example.org",
        "grüße@example.org",
    ] {
        let body = json!({ "identity": identity }).to_string();
        assert_eq!(
            daemon.request("POST", "/v1/keys", Some(&body)).0,
            201,
            "{identity}"
        );
        let encoded: String = identity
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let (status, body) = daemon.request("GET", &format!("/v1/keys/{encoded}"), None);
        assert_eq!(status, 200, "{identity}");
        let found: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(found["identity"], identity);
    }
    // Once only: what decodes to `%41` is not decoded to `A`.
    assert_eq!(
        daemon
            .request("GET", "/v1/keys/percentA+plus@example.org", None)
            .0,
        404
    );
    for (path, status) in [
        ("/v1/keys/%ff%40example.org", 400),
        ("/v1/keys/nobody", 400),
        ("/v1/keys/a%2fb%40example.org", 400),
        ("/v1/keys/a%00b%40example.org", 400),
        ("/v1/keys/a%0ab%40example.org", 400),
        ("/v1/keys/unknown@example.org", 404),
    ] {
        assert_eq!(daemon.request("GET", path, None).0, status, "{path}");
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let (daemon, port) = with_tcp();
    let socket = daemon.dir.path().join("api.sock");
    let dripping = |mut stream: Box<dyn ReadWrite>| {
        let started = Instant::now();
        let _ = stream.write_all(b"GET /ping HTTP/1.1\r\nX: ");
        while stream.write_all(b"a").and_then(|()| stream.flush()).is_ok() {
            assert!(started.elapsed() < PATIENCE, "never cut off");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let silent = |mut stream: Box<dyn ReadWrite>, sent: &str| {
        let _ = stream.write_all(sent.as_bytes());
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the connection is closed in time");
        answer
    };
    thread::scope(|scope| {
        scope.spawn(|| dripping(Box::new(tcp(port))));
        scope.spawn(|| dripping(Box::new(unix(&socket))));
        scope.spawn(|| silent(Box::new(tcp(port)), ""));
        // A connection that was of use, and then is not.
        scope.spawn(|| {
            let answer = silent(
                Box::new(unix(&socket)),
                "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n",
            );
            assert!(answer.ends_with("pong\n"), "{answer}");
        });
        scope.spawn(|| {
            let head = "POST /gen_key HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{";
            let answer = silent(Box::new(tcp(port)), head);
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        });
    });
}

trait ReadWrite: Read + Write {}
impl<S: Read + Write> ReadWrite for S {}

#[test]
fn idle_connections_to_one_door_do_not_close_the_other() {
    let (daemon, port) = with_tcp();
    let socket = daemon.dir.path().join("api.sock");
    let idle: Vec<TcpStream> = (0..1100)
        .map_while(|_| TcpStream::connect(("127.0.0.1", port)).ok())
        .collect();
    assert!(idle.len() >= 1000, "{}", idle.len());
    let stream = unix(&socket);
    // Well before the idle ones are cut off.
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let answer = raw(
        stream,
        b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.ends_with("pong\n"), "{answer}");
    // The door itself answers again once they have been cut off.
    assert_eq!(curl(&Door::Tcp(port), &[], "/ping").status, 200);
    drop(idle);
}

#[test]
fn keys_that_are_made_by_tcp_keep_no_one_waiting_at_the_socket() {
    let (daemon, port) = with_tcp();
    let maker = |number: usize| {
        let mut stream = tcp(port);
        let body = format!("name_real=a&name_email=n{number}@e.org&key_length=4096");
        let head = "POST /gen_key HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded";
        let length = body.len();
        let request = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    // Some go away while their keys are being made.
    for number in 0..300 {
        let stream = maker(1000 + number);
        std::thread::sleep(Duration::from_millis(5));
        drop(stream);
    }
    let body = json!({ "identity": "first@e.org" }).to_string();
    assert_eq!(daemon.request("POST", "/v1/keys", Some(&body)).0, 201);
    let (_, list) = daemon.request("GET", "/v1/keys?limit=1000", None);
    let list: Value = serde_json::from_str(&list).unwrap();
    let made = list["keys"].as_array().unwrap().len();
    assert!(made < 100, "{made} keys are made for those who went away");
    let makers: Vec<TcpStream> = (0..200).map(maker).collect();
    // And some who ask for the keys that are being made.
    let askers: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = tcp(port);
            let number = number % 200;
            let request = format!(
                "GET /v1/keys/n{number}@e.org/public.asc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let body = json!({"identity": ALICE, "algorithm": "rsa4096"}).to_string();
    assert_eq!(daemon.request("POST", "/v1/keys", Some(&body)).0, 201);
    assert_eq!(daemon.request("GET", "/v1/keys", None).0, 200);
    let waiting = makers.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_err()
    });
    assert!(waiting.count() > 100, "it waited for those who came by TCP");
    drop((makers, askers));
}

#[test]
fn a_certificate_is_shown_by_tcp_without_its_private_keys() {
    let (mut daemon, port) = with_tcp();
    let body = json!({ "identity": ALICE }).to_string();
    assert_eq!(daemon.request("POST", "/v1/keys", Some(&body)).0, 201);
    let path = format!("/v1/keys/{ALICE_ENCODED}/certificate.pem");
    let shown = || curl(&Door::Tcp(port), &[], &path);
    assert_eq!(shown().status, 404, "anybody may ask, and so makes none");
    let made = daemon.request("GET", &path, None);
    assert_eq!(made.0, 200);
    daemon.stop();
    // Nothing but what tells whether the master key is right: no key can be decrypted any more.
    let slots = daemon.dir.path().join("state/slots");
    fs::OpenOptions::new()
        .write(true)
        .open(slots)
        .unwrap()
        .set_len(32)
        .unwrap();
    daemon.run();
    assert_eq!(daemon.request("GET", &path, None).0, 503);
    let shown = shown();
    assert_eq!((shown.status, shown.body), made);
}

#[test]
fn no_openpgp_signature_is_made_over_a_digest_that_is_too_weak_for_its_key() {
    let (daemon, _) = with_tcp();
    for (algorithm, digest, status) in [
        ("ed25519", "sha1", 400),
        ("ed25519", "sha256", 200),
        ("nistp384", "sha256", 400),
        ("nistp384", "sha384", 200),
        ("rsa2048", "sha1", 200),
    ] {
        let email = format!("{algorithm}@e.org");
        let key = json!({"identity": email, "algorithm": algorithm});
        let (made, _) = daemon.request("POST", "/v1/keys", Some(&key.to_string()));
        assert!(matches!(made, 200 | 201), "{made}");
        let hash = "00".repeat(match digest {
            "sha1" => 20,
            "sha256" => 32,
            _ => 48,
        });
        let body = json!({"digest": digest, "hash": hash, "purpose": "openpgp"}).to_string();
        let path = format!("/v1/keys/{email}/sign");
        let (found, text) = daemon.request("POST", &path, Some(&body));
        assert_eq!(found, status, "{algorithm} {digest}: {text}");

        let key = json!({"user": ALICE, "key": key}).to_string();
        let (made, text) = daemon.request("POST", "/v1/entrusted-keys", Some(&key));
        assert_eq!(made, 201, "{text}");
        let made: Value = serde_json::from_str(&text).unwrap();
        let body = json!({
            "user": ALICE, "private_key": made["private_key"], "digest": digest, "hash": hash
        });
        let (found, text) =
            daemon.request("POST", "/v1/entrusted-keys/sign", Some(&body.to_string()));
        assert_eq!(found, status, "{algorithm} {digest}: {text}");
    }
}

#[test]
fn what_is_not_http_is_refused_and_the_daemon_stays() {
    let (mut daemon, port) = with_tcp();
    let mut garbage: Vec<Vec<u8>> = [
        "GET /ping\r\n\r\n",
        "GET /ping HTTP/0.9\r\n\r\n",
        "GET /ping HTTP/3.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        "GET  /ping  HTTP/1.1\r\n\r\n",
        "GET /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /gen_key HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "POST /gen_key HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /ping HTTP/1.1\r\nA\0B: c\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    garbage.push(format!("GET /ping HTTP/1.1\r\n{many}\r\n").into_bytes());
    let long = "x".repeat(1 << 20);
    garbage.push(format!("GET /ping HTTP/1.1\r\nX: {long}\r\n\r\n").into_bytes());
    garbage.push(format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes());
    garbage.push((0..=255).cycle().take(1 << 16).collect());
    // A handshake of TLS.
    garbage.push(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    for bytes in garbage {
        let stream = tcp(port);
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let answer = raw(stream, &bytes);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{begin:?}: {answer}");
    }
    // A good request, and garbage behind it in the same packet.
    let answer = raw(
        tcp(port),
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01\x02 nonsense\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("pong\n"),
        "{answer}"
    );
    // Requests one behind the other are answered in their order.
    let answer = raw(
        tcp(port),
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let (ping, live) = (answer.find("pong\n").unwrap(), answer.find("ok\n").unwrap());
    assert!(ping < live, "{answer}");
    assert!(daemon.exited().is_none());
    assert_eq!(curl(&Door::Tcp(port), &[], "/readyz").status, 200);
}

#[test]
fn a_wait_answers_when_everything_is_settled_or_the_time_is_over() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    quick_package(&project, "good", 100, rpm::RpmFormat::V4);
    fs::write(project.join("bad.rpm"), "not a package").unwrap();
    let body = json!({"paths": [daemon.drop_dir()], "timeout": 60}).to_string();
    let (status, text) = daemon.request("POST", "/v1/wait", Some(&body));
    let end: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &end["state"]),
        (200, &json!("settled")),
        "{}",
        daemon.log()
    );
    assert_eq!((&end["found"], &end["settled"]), (&json!(2), &json!(2)));
    let failed = end["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["path"].as_str().unwrap().ends_with("bad.rpm"));
    assert!(!failed[0]["reason"].as_str().unwrap().is_empty());

    // A writer holds a file open, so that it does not settle.
    let mut held = fs::File::create(project.join("held.rpm")).unwrap();
    held.write_all(b"half").unwrap();
    let socket = daemon.dir.path().join("api.sock");
    let body = json!({"paths": [project], "timeout": 2}).to_string();
    let mut arguments = post(&body);
    arguments.extend(["-H", "Accept: application/x-ndjson"]);
    let answer = curl(&Door::Unix(&socket), &arguments, "/v1/wait");
    assert_eq!(answer.content_type, "application/x-ndjson");
    let lines: Vec<Value> = answer
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, before) = lines.split_last().unwrap();
    assert!(before.len() >= 2, "{lines:?}");
    assert!(before.iter().all(|line| line["state"] == "waiting"));
    assert_eq!(last["state"], "timed-out", "{lines:?}");
    assert_eq!((&last["found"], &last["settled"]), (&json!(3), &json!(2)));
    drop(held);

    for (body, status) in [
        (json!({"paths": []}), 400),
        (json!({}), 400),
        (json!({"paths": ["relative"]}), 400),
        (json!({"paths": ["/"], "unknown": 1}), 400),
        (json!({"paths": ["/proc"], "timeout": 1}), 404),
        (
            json!({"paths": [daemon.drop_dir().join("missing/directory")]}),
            404,
        ),
    ] {
        let (found, text) = daemon.request("POST", "/v1/wait", Some(&body.to_string()));
        assert_eq!(found, status, "{body}: {text}");
    }
}

#[test]
fn the_socket_is_for_owner_and_group_and_a_stale_one_is_taken_over() {
    let mut daemon = Daemon::start("");
    let socket = daemon.dir.path().join("api.sock");
    let mode = fs::symlink_metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);

    // A second daemon on the same socket, with a store of its own.
    let mut other = Daemon::prepare("");
    let config = fs::read_to_string(other.config()).unwrap();
    let own = other.dir.path().join("api.sock");
    other.write_config(&config.replace(own.to_str().unwrap(), socket.to_str().unwrap()));
    other.spawn();
    assert_eq!(other.wait_exit().code(), Some(2));
    other.until_logged("another signdrop is listening");
    // And one on the same store.
    let output = daemon.signdrop(["serve", "-c", daemon.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use by another signdrop"), "{said}");
    assert_eq!(
        daemon.request("GET", "/ping", None).0,
        200,
        "the first one goes on"
    );

    daemon.kill();
    assert!(socket.exists(), "a killed daemon leaves its socket");
    daemon.run();
    assert!(daemon.stop().success());
    assert!(!socket.exists(), "one that stops takes it along");
    // What is no socket is nobody's to remove.
    fs::write(&socket, "precious").unwrap();
    daemon.spawn();
    assert_eq!(daemon.wait_exit().code(), Some(2));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_stop_ends_what_is_under_way_with_an_answer() {
    let mut daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    let mut held = fs::File::create(project.join("held.rpm")).unwrap();
    held.write_all(b"half").unwrap();
    let socket = daemon.dir.path().join("api.sock");
    let body = json!({"paths": [project]}).to_string();
    let request = |accept: &str| {
        format!(
            "POST /v1/wait HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (json, lines, idle) = (unix(&socket), unix(&socket), unix(&socket));
    for (mut stream, accept) in [
        (&json, "application/json"),
        (&lines, "application/x-ndjson"),
    ] {
        stream.write_all(request(accept).as_bytes()).unwrap();
    }
    let mut first = [0; 1];
    (&lines).read_exact(&mut first).unwrap();
    daemon.signal("TERM");
    let end = answer(raw(json, b"").as_bytes());
    assert_eq!(end.status, 503, "{end:?}");
    assert!(end.body.contains("stopping"), "{end:?}");
    let end = raw(lines, b"");
    assert!(
        end.contains("\"status\":503") && end.ends_with("0\r\n\r\n"),
        "{end}"
    );
    assert_eq!(raw(idle, b""), "");
    let started = Instant::now();
    assert_eq!(daemon.wait_exit().code(), Some(0), "{}", daemon.log());
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "it drained for long"
    );
    drop(held);
}

#[test]
fn readyz_says_what_is_wrong() {
    let daemon = Daemon::start("");
    assert_eq!(
        daemon.request("GET", "/readyz", None),
        (200, "ok\n".to_owned())
    );
    let mut broken = Daemon::prepare("");
    fs::remove_dir(broken.drop_dir()).unwrap();
    broken.spawn();
    broken.until("listening", |daemon| {
        daemon.dir.path().join("api.sock").exists()
            && daemon.request("GET", "/livez", None).0 == 200
    });
    broken.until("not ready", |daemon| {
        let (status, text) = daemon.request("GET", "/readyz", None);
        status == 503 && text.contains(daemon.drop_dir().to_str().unwrap())
    });
}

#[test]
fn a_daemon_whose_store_cannot_be_written_ends_and_the_next_start_goes_on() {
    let disk = Mounted::new("tmpfs", 64);
    let mut daemon = Daemon::prepare_in(tempfile::tempdir_in(disk.path()).unwrap(), "");
    daemon.run();
    let body = json!({"identity": ALICE, "algorithm": "ed25519"}).to_string();
    assert_eq!(daemon.request("POST", "/v1/keys", Some(&body)).0, 201);
    let before = daemon.export(ALICE);
    let filler = disk.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // What fits into the database's present block still does, so it takes some keys.
    let socket = daemon.dir.path().join("api.sock");
    for number in 0..10_000 {
        if daemon.exited().is_some() {
            break;
        }
        let body = json!({"identity": format!("n{number}@example.org"), "algorithm": "ed25519"});
        let output = run(Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-d",
                &body.to_string(),
            ])
            .arg("--unix-socket")
            .arg(&socket)
            .arg("http://signdrop/v1/keys"));
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        // 000 is no answer.
        assert!(["201", "503", "000"].contains(&status.as_str()), "{status}");
    }
    assert_eq!(daemon.wait_exit().code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("the store has failed"));
    fs::remove_file(&filler).unwrap();
    daemon.run();
    assert_eq!(daemon.export(ALICE), before);
    let other = json!({"identity": "bob#tools@copr.example.org", "algorithm": "ed25519"});
    assert_eq!(
        daemon
            .request("POST", "/v1/keys", Some(&other.to_string()))
            .0,
        201
    );
    drop(daemon);
}

/// One line of metrics: its name and labels as a text, and its number.
fn sample(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    assert!(
        name.starts_with("signdrop_")
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '0'..='9')),
        "{line}"
    );
    let labels = labels.strip_suffix('}').expect(line);
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").expect(line);
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{line}"
        );
        assert!(!value.contains('\n'), "{line}");
    }
    (series.to_owned(), value.parse().expect(line))
}

#[test]
fn every_line_of_the_metrics_is_well_formed() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    quick_package(&project, "good", 100, rpm::RpmFormat::V4);
    fs::write(project.join("bad.rpm"), "not a package").unwrap();
    daemon.wait(&project);
    let socket = daemon.dir.path().join("api.sock");
    let answer = curl(&Door::Unix(&socket), &[], "/metrics");
    assert_eq!(
        answer.content_type,
        "application/openmetrics-text;version=1.0.0;charset=utf-8"
    );
    assert!(answer.body.ends_with("# EOF\n"));
    let mut types = BTreeSet::new();
    let mut samples = Vec::new();
    for line in answer.body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next().unwrap(), words.next(), words.next()) {
                ("EOF", None, None) => {}
                ("HELP" | "UNIT", Some(_), Some(_)) => {}
                (
                    "TYPE",
                    Some(name),
                    Some("counter" | "gauge" | "histogram" | "info" | "unknown"),
                ) => {
                    assert!(types.insert(name.to_owned()), "{name} twice");
                }
                _ => panic!("{line}"),
            }
        } else {
            samples.push(sample(line));
        }
    }
    let series: BTreeSet<&str> = samples.iter().map(|(series, _)| series.as_str()).collect();
    assert_eq!(series.len(), samples.len(), "a series twice");
    let value = |wanted: &str| {
        let found = samples
            .iter()
            .find(|(series, _)| series == wanted || series.contains(wanted));
        found
            .unwrap_or_else(|| panic!("no {wanted}:\n{}", answer.body))
            .1
    };
    assert_eq!(value("signdrop_keys"), 1.0);
    assert_eq!(value("outcome=\"signed\""), 1.0);
    assert_eq!(value("outcome=\"failed\""), 1.0);
    assert_eq!(value("signdrop_queue"), 0.0);
    assert_eq!(value("signdrop_latency_seconds_count"), 2.0);
    // A histogram's buckets grow, and the last one is everything.
    let buckets: Vec<f64> = samples
        .iter()
        .filter(|(series, _)| series.starts_with("signdrop_latency_seconds_bucket"))
        .map(|(_, value)| *value)
        .collect();
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&2.0));
}

/// What a `$ref` leads to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("references stay inside");
            document
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => value,
    }
}

fn each_reference(document: &Value, value: &Value) {
    resolved(document, value);
    match value {
        Value::Object(map) => map
            .values()
            .for_each(|value| each_reference(document, value)),
        Value::Array(list) => list
            .iter()
            .for_each(|value| each_reference(document, value)),
        _ => {}
    }
}

/// Why a value is not what a schema says; the keywords that the document uses.
fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolved(document, schema);
    let is_type = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("a type {other}"),
    };
    let right_type = match &schema["type"] {
        Value::String(name) => is_type(name),
        Value::Array(names) => names.iter().any(|name| is_type(name.as_str().unwrap())),
        _ => true,
    };
    if !right_type {
        return Some(format!("{value} is no {}", schema["type"]));
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fitting = options
            .iter()
            .filter(|option| mismatch(document, option, value).is_none())
            .count();
        return (fitting != 1).then(|| format!("{value} fits {fitting} of the options"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Some(format!("{value} is none of {allowed:?}"));
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        return Some(format!("{value} is not {constant}"));
    }
    let properties = schema["properties"].as_object();
    if let (Some(object), Some(properties)) = (value.as_object(), properties) {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                return Some(format!("{name} is missing in {value}"));
            }
        }
        for (name, value) in object {
            let wrong = match properties.get(name) {
                Some(schema) => mismatch(document, schema, value),
                None if schema["additionalProperties"] == false => {
                    Some(format!("{name} is not described"))
                }
                None => None,
            };
            if wrong.is_some() {
                return wrong;
            }
        }
    }
    let items = value.as_array().into_iter().flatten();
    schema.get("items").and_then(|schema| {
        items
            .filter_map(|item| mismatch(document, schema, item))
            .next()
    })
}

#[test]
fn the_openapi_document_is_whole() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    each_reference(&document, &document);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "parameters")
        {
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{method} {path}"
            );
            assert!(
                responses
                    .values()
                    .all(|response| { resolved(&document, response)["description"].is_string() })
            );
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{method} {path}"
            );
            let names_email = path.contains("{email}");
            assert_eq!(names_email, item["parameters"].is_array(), "{path}");
        }
    }
}

#[test]
fn the_daemon_answers_as_the_openapi_document_says() {
    let (daemon, port) = with_tcp();
    let socket = daemon.dir.path().join("api.sock");
    let project = daemon.project("alice/tools");
    fs::write(project.join("bad.rpm"), "not a package").unwrap();
    daemon.wait(&project);
    let served = curl(&Door::Tcp(port), &[], "/openapi.json").body;
    let document: Value = serde_json::from_str(&served).unwrap();
    assert_eq!(document, serde_json::from_str::<Value>(OPENAPI).unwrap());

    let hash = "00".repeat(32);
    let entrusted =
        json!({"user": ALICE, "key": {"identity": "lent@example.org", "algorithm": "ed25519"}});
    let lent = curl(
        &Door::Unix(&socket),
        &post(&entrusted.to_string()),
        "/v1/entrusted-keys",
    );
    let lent: Value = serde_json::from_str(&lent.body).unwrap();
    let body = |operation: &str| match operation {
        "makeKey" => {
            json!({"identity": ALICE, "name": "alice", "algorithm": "nistp256", "expires": "1y"})
        }
        "genKey" => json!({"name_real": "bob", "name_email": "bob#tools@copr.example.org"}),
        "sign" => json!({"digest": "sha256", "hash": hash, "purpose": "openpgp"}),
        "makeEntrustedKey" => entrusted.clone(),
        "signWithEntrustedKey" => {
            json!({"user": ALICE, "private_key": lent["private_key"], "digest": "sha256", "hash": hash})
        }
        "extendKey" => json!({"expires": "5y"}),
        "wait" => json!({"paths": [project], "timeout": 30}),
        // Without a mount there is nothing to name.
        "retry" => json!({"paths": []}),
        other => panic!("no body for {other}"),
    };
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                operations.push((path.as_str(), method.to_uppercase(), operation));
            }
        }
    }
    // The key is made before it is asked for, and deleted at the end.
    operations.sort_by_key(
        |(_, method, operation)| match operation["operationId"].as_str() {
            Some("makeKey") => 0,
            _ if method == "DELETE" => 2,
            _ => 1,
        },
    );
    let mut described = BTreeSet::new();
    for (path, method, operation) in operations {
        let id = operation["operationId"].as_str().unwrap();
        let at = path.replace("{email}", ALICE_ENCODED);
        let sent = (method == "POST").then(|| body(id).to_string());
        let mut arguments = vec!["-X", method.as_str()];
        if let Some(sent) = &sent {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(mismatch(&document, schema, &body(id)), None, "{id}");
            arguments.extend(post(sent));
        }
        let doors = operation["x-signdrop-doors"].as_array().unwrap();
        let over_tcp = doors.contains(&json!("tcp"));
        let mut answers = Vec::new();
        if !over_tcp {
            let refused = curl(&Door::Tcp(port), &arguments, &at);
            assert_eq!(refused.status, 403, "{id}");
            answers.push(refused);
        } else if id != "genKey" {
            let offered = curl(&Door::Tcp(port), &arguments, &at);
            assert_ne!(offered.status, 403, "{id}");
        }
        let good = curl(&Door::Unix(&socket), &arguments, &at);
        assert!((200..300).contains(&good.status), "{id}: {good:?}");
        answers.push(good);
        answers.push(curl(&Door::Unix(&socket), &["-X", "PATCH"], &at));
        assert_eq!(answers.last().unwrap().status, 405, "{id}");
        if method == "POST" {
            answers.push(curl(&Door::Unix(&socket), &post("nonsense"), &at));
            assert_eq!(answers.last().unwrap().status, 400, "{id}");
        }
        if path.contains("{email}") {
            let absent = path.replace("{email}", "nobody%40example.org");
            answers.push(curl(&Door::Unix(&socket), &arguments, &absent));
            assert_eq!(answers.last().unwrap().status, 404, "{id}");
        }
        for answer in answers {
            let response = &operation["responses"][answer.status.to_string()];
            assert!(!response.is_null(), "{id} answers {}", answer.status);
            let response = resolved(&document, response);
            let kind = answer.content_type.split(';').next().unwrap();
            let schema = &response["content"][kind]["schema"];
            assert!(!schema.is_null(), "{id} answers {kind}");
            let value = if kind.ends_with("json") {
                serde_json::from_str(&answer.body).unwrap()
            } else {
                Value::String(answer.body.clone())
            };
            assert_eq!(mismatch(&document, schema, &value), None, "{id}");
        }
        described.insert(path.to_owned());
    }
    // Each route of the router is described: its paths are the string literals of its table.
    let source = include_str!("../src/http/routes.rs");
    let table = source.split_once("for (path, route) in [").unwrap().1;
    let table = table.split_once("] {").unwrap().0;
    let routes: BTreeSet<String> = table
        .lines()
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .collect();
    assert_eq!(routes, described);
}
