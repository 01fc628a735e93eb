//! A directory that goes when the process ends cleanly.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A directory under the system's temporary one; removed with all its content when dropped.
#[derive(Debug)]
pub(crate) struct EphemeralDirectory(PathBuf);

impl EphemeralDirectory {
    /// Makes one that is nobody else's.
    pub(crate) fn create() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let root = std::env::temp_dir();
        let mut last = None;
        for attempt in 0..1000 {
            let path = root.join(format!("levada-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => last = Some(error),
            }
        }
        let error = last.map_or_else(|| anyhow::anyhow!("no name is free"), anyhow::Error::from);
        Err(error).with_context(|| format!("make a temporary directory in {}", root.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for EphemeralDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_two_and_go_with_their_content() {
        let one = EphemeralDirectory::create().unwrap();
        let other = EphemeralDirectory::create().unwrap();
        assert_ne!(one.path(), other.path());
        std::fs::write(one.path().join("file"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
    }
}
