//! Records in and out.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use super::{Server, failed, numbered, run, succeeded};

fn server() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (Server::dev(directory.path(), 0), directory)
}

/// Lines of all kinds: empty, long, not UTF-8, with a carriage return, without an end.
fn text() -> Vec<u8> {
    let mut text = b"first\n\n\r\n\xff\xfe\x00x\n".to_vec();
    for index in 0..20_000u32 {
        text.extend(format!("line {index} {:x}\n", index.wrapping_mul(2_654_435_761)).into_bytes());
    }
    text.extend(vec![b'x'; 300_000]);
    text.extend(b"\nlast");
    text
}

#[test]
fn a_file_comes_out_as_it_went_in() {
    let (server, directory) = server();
    let file = directory.path().join("lines");
    std::fs::write(&file, text()).unwrap();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        let arguments = ["produce", &topic, "-z", codec, "--file", file.to_str().unwrap()];
        let said = run(&mut server.command(&arguments), b"");
        assert!(said.status.success(), "{codec}: {}", String::from_utf8_lossy(&said.stderr));
        let output = server.run(&["consume", &topic, "--until-end"]);
        assert!(output.status.success());
        let mut expected = text();
        expected.push(b'\n');
        assert!(output.stdout == expected, "{codec}: {} bytes came back", output.stdout.len());
    }
}

#[test]
fn acks_stdin_keys_headers_and_places_are_kept() {
    let (server, _directory) = server();
    for acks in ["0", "1", "all"] {
        let topic = format!("acks-{acks}");
        let produce =
            ["produce", &topic, "--acks", acks, "-k", ":", "-H", "h=1", "-H", "i=2", "-p", "0"];
        succeeded(&run(&mut server.command(&produce), b"a:1\nno key\n:empty key\n"));
        // Nothing is answered to acks 0: read until all are there.
        let out = server.ok(&["consume", &topic, "-n", "3", "--format", "%p@%o %K %k=%v %h\\n"]);
        assert_eq!(out, "0@0 1 a=1 h=1,i=2\n0@1 -1 =no key h=1,i=2\n0@2 0 =empty key h=1,i=2\n");
    }
}

#[test]
fn reading_begins_and_ends_where_it_is_told_to() {
    let (server, _directory) = server();
    let lines = numbered(100, |index| index.to_string());
    let report = run(&mut server.command(&["produce", "t", "-o", "json"]), lines.as_bytes());
    let report: serde_json::Value = serde_json::from_str(&succeeded(&report)).unwrap();
    assert_eq!(report["records"], 100);
    assert_eq!(server.ok(&["consume", "t", "--from", "97", "-e"]), "97\n98\n99\n");
    assert_eq!(server.ok(&["consume", "t", "--from", "10", "-n", "2"]), "10\n11\n");
    assert_eq!(server.ok(&["consume", "t", "--from", "end", "-e"]), "");
    assert_eq!(server.ok(&["consume", "t", "--from", "@-1h", "-n", "1"]), "0\n");
    assert_eq!(server.ok(&["consume", "t", "--from", "@2999-01-01", "-e"]), "");
    let json = server.ok(&["consume", "t", "-n", "1", "-o", "json"]);
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&record["value"], &record["offset"]), (&"0".into(), &0.into()));
    let said = failed(&server.run(&["consume", "t", "-p", "7", "-e"]), 1);
    assert!(said.contains("no partition 7"), "{said}");
    let said = failed(&run(&mut server.command(&["produce", "t", "-p", "7"]), b"x\n"), 1);
    assert!(said.contains("no partition 7"), "{said}");
    let said = failed(&server.run(&["consume", "missing", "-e"]), 1);
    assert!(said.contains("topic create"), "{said}");
}

#[test]
fn a_record_that_is_too_large_fails_with_its_line_and_the_rest_is_cut_to_fit() {
    let (server, _directory) = server();
    let mut lines = b"small\n".to_vec();
    lines.extend(vec![b'x'; 2 << 20]);
    lines.extend(b"\n");
    let output = run(&mut server.command(&["produce", "t"]), &lines);
    let said = failed(&output, 1);
    assert!(said.contains("line 2") && said.contains("max.message.bytes"), "{said}");
    assert_eq!(server.ok(&["consume", "t", "-e"]), "small\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let (server, _directory) = server();
    succeeded(&run(
        &mut server.command(&["produce", "t"]),
        &b"a line of some length\n".repeat(100_000),
    ));
    let mut child = server
        .command(&["consume", "t", "--until-end"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "a line of some length\n");
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}
