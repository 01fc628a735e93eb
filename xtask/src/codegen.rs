//! `cargo xtask codegen`: Rust from the Kafka message definitions.
//! The result is committed; a test here makes it anew and compares, one in `protocol` compares hashes.

pub(crate) mod emit;
pub(crate) mod schema;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use schema::Api;

/// A file to be written, with its text.
type Generated = (PathBuf, String);

/// Makes the Kafka codec anew.
///
/// # Errors
/// When a definition is wrong, when rustfmt is missing, or when a file cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut written = 0;
    for (path, text) in kafka()? {
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            written += 1;
        }
    }
    eprintln!("{written} files changed");
    Ok(())
}

/// All files of the Kafka codec as they should be.
fn kafka() -> anyhow::Result<Vec<Generated>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src/kafka");
    let mut definitions = Vec::new();
    let entries = folder.join("schema").read_dir().context("read protocol/src/kafka/schema")?;
    for entry in entries {
        let path = entry?.path();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let api = match Api::parse(&text) {
            Ok(api) => api,
            Err(why) => bail!("{}: {why}", path.display()),
        };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        ensure!(stem == emit::snake(&api.name), "{} defines {}", path.display(), api.name);
        definitions.push((api, text));
    }
    definitions.sort_by_key(|(api, _)| api.key);
    let mut files = Vec::new();
    for (api, text) in &definitions {
        let path = folder.join(format!("generated/{}.rs", emit::snake(&api.name)));
        files.push((path, format(&emit::api(api, &hash(text)))?));
    }
    let apis: Vec<Api> = definitions.into_iter().map(|(api, _)| api).collect();
    files.push((folder.join("generated.rs"), format(&emit::index(&apis))?));
    Ok(files)
}

/// Hash of a definition as generated files keep it.
fn hash(text: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// Pipes a file through rustfmt with the settings of the workspace.
fn format(text: &str) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start rustfmt; `rustup component add rustfmt` installs it")?;
    let mut stdin = rustfmt.stdin.take().context("no stdin of rustfmt")?;
    // Rustfmt reads to the end before it writes, so this cannot block both sides.
    stdin.write_all(text.as_bytes()).context("write to rustfmt")?;
    drop(stdin);
    let output = rustfmt.wait_with_output().context("wait for rustfmt")?;
    ensure!(output.status.success(), "rustfmt refuses the generated code:\n{text}");
    String::from_utf8(output.stdout).context("rustfmt wrote no utf-8")
}

#[cfg(test)]
mod tests {
    use super::kafka;

    #[test]
    fn committed_kafka_code_is_what_the_generator_makes() {
        for (path, text) in kafka().unwrap() {
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is stale: run `cargo xtask codegen`", path.display());
        }
    }
}
