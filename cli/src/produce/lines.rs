//! Lines of a file or of stdin, read by a thread of its own, in blocks of whole lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

/// Bytes read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Longest line, in bytes; longer than what brokers take by default.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Blocks that are read ahead.
const BLOCKS_AHEAD: usize = 4;

/// Whole lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// The lines, without their ends. A last line may lack its end.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let body = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        body.split(|byte| *byte == b'\n')
    }
}

/// The file, or stdin; the length of the file, if it has one.
pub(super) fn open(path: Option<&Path>) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    let Some(path) = path else { return Ok((Box::new(io::stdin()), None)) };
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("open {}", path.display()))?;
    if metadata.is_dir() {
        bail!("open {}: it is a directory", path.display());
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Starts reading. The channel ends with the source or with an error.
pub(super) fn read_blocks(
    source: Box<dyn Read + Send>,
) -> io::Result<mpsc::Receiver<anyhow::Result<Block>>> {
    let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
    std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
        let done = cut(source, LINE_BYTES_MAX, |block| sender.blocking_send(Ok(block)).is_ok());
        if let Err(error) = done {
            // Nobody may listen any more.
            drop(sender.blocking_send(Err(error)));
        }
    })?;
    Ok(blocks)
}

/// Reads everything and gives whole lines to `take`, until that returns false.
fn cut(
    mut source: impl Read,
    line_bytes_max: usize,
    mut take: impl FnMut(Block) -> bool,
) -> anyhow::Result<()> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let had = bytes.len();
        let read =
            (&mut source).take(BLOCK_BYTES as u64).read_to_end(&mut bytes).context("read lines")?;
        let fresh = bytes.get(had..).unwrap_or_default();
        let end = fresh.iter().rposition(|byte| *byte == b'\n').map(|at| had + at + 1);
        match end {
            Some(end) => {
                let rest = bytes.split_off(end);
                if !take(Block(std::mem::replace(&mut bytes, rest))) {
                    return Ok(());
                }
            }
            None if read == 0 => {
                if !bytes.is_empty() {
                    take(Block(bytes));
                }
                return Ok(());
            }
            None => {}
        }
        if bytes.len() > line_bytes_max {
            bail!("a line is longer than {line_bytes_max} B");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        cut(text, 1 << 20, |block| {
            lines.extend(block.lines().map(<[u8]>::to_vec));
            true
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"a\n\nb"), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"\n"), [b""]);
        assert_eq!(lines(b"a\r\n"), [b"a\r"]);
        let mut long = Vec::new();
        for index in 0..300_000 {
            long.extend(format!("line {index}\n").into_bytes());
        }
        assert!(long.len() > 2 * BLOCK_BYTES);
        let read = lines(&long);
        assert_eq!(read.len(), 300_000);
        assert_eq!(read.join(&b'\n'), long[..long.len() - 1]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let error = cut(io::repeat(b'x'), 3 << 20, |_| true).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
