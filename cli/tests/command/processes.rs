//! Processes that serve: start, ready line, stop.

use nix::sys::signal::Signal;

use super::{Server, failed, levada, run, succeeded};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn dev_stops_cleanly_on_both_signals_and_keeps_its_data() {
    let directory = directory();
    for (signal, had) in [
        (Signal::SIGTERM, ""),
        (Signal::SIGINT, "SIGTERM\n"),
        (Signal::SIGINT, "SIGTERM\nSIGINT\n"),
    ] {
        let server = Server::dev(directory.path(), 0);
        assert_eq!(server.ready, format!("kafka={}", server.bootstrap()));
        if !had.is_empty() {
            assert_eq!(server.ok(&["consume", "t", "-e"]), had);
        }
        let line = format!("{signal}\n");
        succeeded(&run(&mut server.command(&["produce", "t"]), line.as_bytes()));
        let (status, said) = server.end(signal);
        assert!(status.success(), "{said}");
        assert!(said.contains("stopped cleanly"), "{said}");
        assert!(said.contains(directory.path().to_str().unwrap()), "says where data stays: {said}");
    }
}

#[test]
fn ephemeral_data_goes_at_the_end() {
    let root = directory();
    let server = Server::start(
        levada()
            .args(["dev", "--ephemeral", "--listen", "127.0.0.1:0", "--shards", "1"])
            .env("TMPDIR", root.path()),
    );
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    succeeded(&run(&mut server.command(&["produce", "t"]), b"x\n"));
    let (status, said) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{said}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_second_process_in_the_same_directory_is_refused() {
    let directory = directory();
    let server = Server::dev(directory.path(), 0);
    let mut second = levada();
    second.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    let said = failed(&run(&mut second, b""), 1);
    assert!(said.contains("error:"), "{said}");
    assert_eq!(server.ok(&["topic", "list", "-o", "json"]).trim(), "[]");
}

#[test]
fn a_taken_port_is_named() {
    let (one, other) = (directory(), directory());
    let server = Server::dev(one.path(), 0);
    let mut second = levada();
    second.args(["dev", "--listen", server.bootstrap(), "--data-dir"]).arg(other.path());
    let said = failed(&run(&mut second, b""), 1);
    assert!(said.contains(server.bootstrap()), "{said}");
}

#[test]
fn coordinator_and_broker_are_processes_of_their_own() {
    let directory = directory();
    let config = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let data = directory.path().display();
    let coordinator = config(
        "coordinator.toml",
        format!(
            "data_dir = \"{data}/c\"\nlisten = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n"
        ),
    );
    let coordinator = Server::start(levada().arg("coordinator").arg("--config").arg(coordinator));
    let address = coordinator.ready.strip_prefix("coordinator=").unwrap();
    let (address, http) = address.split_once(" http=").unwrap();
    assert!(http.starts_with("127.0.0.1:"));
    let broker = config(
        "broker.toml",
        format!(
            "data_dir = \"{data}/b\"\nlisten = \"127.0.0.1:1\"\ncoordinators = [\"{address}\"]\nshards = 9\n"
        ),
    );
    let broker = Server::start(
        levada()
            .arg("broker")
            .arg("--config")
            .arg(broker)
            .args(["--listen", "127.0.0.1:0", "--set", "admin_listen="])
            .env("LEVADA_SHARDS", "1"),
    );
    succeeded(&run(&mut broker.command(&["produce", "t"]), b"x\n"));
    assert_eq!(broker.ok(&["consume", "t", "-e"]), "x\n");
    for server in [broker, coordinator] {
        let (status, said) = server.end(Signal::SIGTERM);
        assert!(status.success(), "{said}");
    }
}

#[test]
fn segments_can_be_read_without_a_broker() {
    let directory = directory();
    let server = Server::dev(directory.path(), 0);
    succeeded(&run(&mut server.command(&["produce", "t"]), b"a\nb\nc\n"));
    server.end(Signal::SIGTERM);
    let verify = |output: &str| {
        run(levada().args(["log", "verify", "-o", output]).arg(directory.path()), b"")
    };
    let rows: serde_json::Value = serde_json::from_str(&succeeded(&verify("json"))).unwrap();
    assert_eq!((&rows[0]["records"], &rows[0]["damage"]), (&3.into(), &serde_json::Value::Null));
    let segment = rows[0]["segment"].as_str().unwrap().to_owned();
    let dumped = succeeded(&run(levada().args(["log", "dump", &segment]), b""));
    assert!(dumped.contains("offsets 0..") && dumped.contains("records"), "{dumped}");

    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[65] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = verify("table");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("damaged at byte 0"));
}
