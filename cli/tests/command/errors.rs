//! What is wrong, and what to do: on stderr, with the right exit code.

use super::{failed, free_port, levada, run, succeeded};

#[test]
fn nobody_there_says_how_to_start_a_broker() {
    let bootstrap = format!("127.0.0.1:{}", free_port());
    for arguments in
        [&["topic", "list"][..], &["consume", "t"], &["produce", "t"], &["cluster", "status"]]
    {
        let output = run(levada().args(arguments).args(["--bootstrap", &bootstrap]), b"");
        let said = failed(&output, 1);
        assert!(said.contains("levada dev"), "{said}");
        assert!(said.contains(&bootstrap), "{said}");
    }
    let output = run(levada().args(["topic", "list"]).env("LEVADA_BOOTSTRAP", &bootstrap), b"");
    assert!(failed(&output, 1).contains(&bootstrap));
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    for arguments in [
        &["no-such-command"][..],
        &["consume"],
        &["produce", "t", "--acks", "2"],
        &["topic", "create"],
        &["topic", "create", "t", "-c", "novalue"],
        &["topic", "list", "-o", "xml"],
        &["dev", "--ephemeral", "--data-dir", "x"],
    ] {
        let said = failed(&run(levada().args(arguments), b""), 2);
        assert!(said.contains("Usage") || said.contains("help"), "{arguments:?}: {said}");
    }
    assert!(succeeded(&run(levada().arg("--help"), b"")).contains("doctor"));
}

#[test]
fn what_is_not_there_yet_is_said() {
    let said = failed(&run(levada().args(["dev", "--brokers", "3"]), b""), 1);
    assert!(said.contains("replication"), "{said}");
    let said = failed(&run(levada().args(["group", "describe", "--all", "g"]), b""), 1);
    assert!(said.contains("group describe"), "{said}");
    let said = failed(&run(levada().args(["consume", "t", "--group", "g"]), b""), 1);
    assert!(said.contains("without --group"), "{said}");
}

#[test]
fn senseless_arguments_are_named_before_anything_is_asked() {
    for (arguments, says) in [
        (&["consume", "t", "--from", "yesterday"][..], "yesterday"),
        (&["consume", "t", "--from", "@2026-13-01"], "2026-13-01"),
        (&["consume", "t", "--format", "%q"], "%q"),
        (&["topic", "alter", "t"], "nothing to change"),
        (&["produce", "t", "--file", "/no/such/file"], "/no/such/file"),
        (&["log", "verify", "/no/such/file"], "/no/such/file"),
    ] {
        let said = failed(&run(levada().args(arguments), b""), 1);
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn an_unknown_key_of_the_configuration_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "shrads = 2\n").unwrap();
    for process in ["broker", "coordinator"] {
        let said = failed(&run(levada().arg(process).arg("--config").arg(file.path()), b""), 1);
        assert!(said.contains("shrads"), "{said}");
    }
    let said = failed(&run(levada().args(["broker", "--set", "shrads=2"]), b""), 1);
    assert!(said.contains("shrads"), "{said}");
    let said = failed(&run(levada().arg("broker").env("LEVADA_SHARDS", "many"), b""), 1);
    assert!(said.contains("LEVADA_SHARDS") && said.contains("many"), "{said}");
}

#[test]
fn the_doctor_says_for_each_thing_whether_it_will_do() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output =
        run(levada().args(["doctor", "-o", "json", "--data-dir"]).arg(directory.path()), b"");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let whats: Vec<&str> = value["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["what"].as_str())
        .collect();
    for what in [
        "io_uring",
        "locked memory",
        "open files",
        "direct I/O",
        "stable storage",
        "free space",
        "clock",
    ] {
        assert!(whats.contains(&what), "{what}: {whats:?}");
    }
    let is_safe = value["verdict"] == "good" || value["verdict"] == "warning";
    assert_eq!(output.status.success(), is_safe);
}
