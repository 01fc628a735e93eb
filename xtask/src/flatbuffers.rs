//! `cargo xtask flatbuffers`: Rust from the FlatBuffers schemas.
//! The result is committed with its schema's hash, which a test here compares; only making it anew
//! needs flatc, which the feature `flatc` builds (cmake and a C++ compiler needed).

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Schemas and what is made of them, from the root of the workspace.
const SCHEMAS: &[(&str, &str)] = &[
    ("protocol/src/cluster/cluster.fbs", "protocol/src/generated/cluster.rs"),
    ("record/src/schema/batch.fbs", "record/src/generated/batch.rs"),
];

/// Makes all generated FlatBuffers code anew.
///
/// # Errors
/// When flatc is not built in or refuses a schema, or when a file cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    for (schema, generated) in SCHEMAS {
        let text = read(&at_root(schema))?;
        let made = format!("{}\n{}", first_line(&text), flatc(&at_root(schema))?);
        let path = at_root(generated);
        std::fs::write(&path, made).with_context(|| format!("write {}", path.display()))?;
        eprintln!("{generated} is made anew");
    }
    Ok(())
}

/// The first line of what is made of a schema.
fn first_line(schema: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(schema.as_bytes());
    format!("// Schema {hash:016x}; `cargo xtask flatbuffers` makes this file.")
}

fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(feature = "flatc")]
fn flatc(schema: &Path) -> anyhow::Result<String> {
    use anyhow::ensure;

    let stem = schema.file_stem().and_then(|stem| stem.to_str()).context("schema has no name")?;
    let folder = std::env::temp_dir().join(format!("levada-flatc-{}", std::process::id()));
    let status = std::process::Command::new(flatc_fork::flatc())
        .arg("--rust")
        .arg("-o")
        .arg(&folder)
        .arg(schema)
        .status()
        .context("start flatc")?;
    ensure!(status.success(), "flatc refuses {}", schema.display());
    let made = read(&folder.join(format!("{stem}_generated.rs")))?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(made)
}

#[cfg(not(feature = "flatc"))]
fn flatc(_schema: &Path) -> anyhow::Result<String> {
    anyhow::bail!(
        "flatc is not built in: run `cargo run -p levada-xtask --features flatc -- flatbuffers`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_made_of_its_schema_as_it_is_now() {
        for (schema, generated) in SCHEMAS {
            let expected = first_line(&read(&at_root(schema)).unwrap());
            let made = read(&at_root(generated)).unwrap();
            assert_eq!(
                made.lines().next(),
                Some(expected.as_str()),
                "{generated} is stale: `cargo run -p levada-xtask --features flatc -- flatbuffers`"
            );
        }
    }
}
