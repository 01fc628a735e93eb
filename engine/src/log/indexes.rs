//! A segment's index: completed from its file and by a walk, written once the segment is sealed. The file is a hint:
//! what it leads to is compared with the log.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::copies::{Copy, Writers, read_copy, write_copy};
use crate::digest::Digest;
use crate::error::ReadError;
use crate::fields::{FieldReader, FieldWriter};
use crate::log::Log;
use crate::log::read::{Walk, WalkPoint, out_of_range};
use crate::segment::index::{Index, IndexEntry};
use crate::segment::layout::SegmentName;

const INDEX_MAGIC: [u8; 4] = *b"LVIX";

impl Log {
    /// Completes the index of a segment: from its index file, and by walking what that does not cover. A file that
    /// does not lead to where the log is known to be is one of a branch that was cut off, or damaged: the segment is
    /// walked from its first byte then.
    pub(crate) async fn load_index(self: &Rc<Self>, name: SegmentName) -> Result<(), ReadError> {
        let (digest_before, target) = {
            let state = self.state.borrow();
            let Some(at) = state.segments.iter().position(|segment| segment.name == name) else {
                return Err(out_of_range(&state, name.base));
            };
            let before = at.checked_sub(1).and_then(|before| state.segments.get(before));
            let Some(segment) = state.segments.get(at) else {
                return Err(out_of_range(&state, name.base));
            };
            let target = match segment.index.first() {
                Some(first) => (first.byte, first.digest),
                None => (segment.length, segment.digest),
            };
            (before.map_or(self.base_digest.get(), |segment| segment.digest), target)
        };
        let base =
            WalkPoint { byte: 0, offset: name.base, digest: digest_before, max_timestamp: -1 };
        // The file is a hint: without it the segment is walked.
        let stored = self.read_index_file(name).await.unwrap_or_else(|error| {
            tracing::warn!(path = %self.index_path(name).display(), %error, "read an index");
            None
        });
        let mut stored = stored.filter(|(digest_at_base, _)| *digest_at_base == digest_before);
        let index = loop {
            let mut index = Index::default();
            let mut at = base;
            let from_file = stored.take();
            let is_from_file = from_file.is_some();
            if let Some((_, mut entries)) = from_file {
                entries.truncate(target.0);
                at = entries.last().map_or(base, WalkPoint::from);
                index = entries;
            }
            let walked = self
                .walk(name, at, |met| {
                    if met.at.byte >= target.0 {
                        return Walk::Stop;
                    }
                    index.note(IndexEntry {
                        offset: met.at.offset,
                        byte: met.at.byte,
                        digest: met.at.digest,
                        max_timestamp_before: met.at.max_timestamp,
                    });
                    Walk::On
                })
                .await;
            match walked {
                Ok(end) if (end.byte, end.digest) == target => break index,
                // The log may have been cut while it was walked; then nothing of this is needed.
                _ if !self.still_leads_to(name, target) => return Ok(()),
                _ if is_from_file => {}
                Ok(end) => {
                    let reason = format!("digest differs at offset {}", end.offset);
                    return Err(self.damaged(name, end.byte, &reason));
                }
                Err(error) => return Err(error),
            }
        };
        let mut state = self.state.borrow_mut();
        if let Some(segment) = state.segments.iter_mut().find(|segment| segment.name == name)
            && segment.index.first().is_none_or(|first| first.byte == target.0)
        {
            segment.index.prepend(&index);
        }
        Ok(())
    }

    /// Whether the segment is as it was when its index began, or its end lay, at `target`.
    fn still_leads_to(&self, name: SegmentName, target: (u64, Digest)) -> bool {
        let state = self.state.borrow();
        let segment = state.segments.iter().find(|segment| segment.name == name);
        segment.is_some_and(|segment| match segment.index.first() {
            Some(first) => (first.byte, first.digest) == target,
            None => (segment.length, segment.digest) == target,
        })
    }

    /// Digest at the segment's base and its entries, as the index file has them; `None` when there is no whole one.
    async fn read_index_file(&self, name: SegmentName) -> io::Result<Option<(Digest, Index)>> {
        let path = self.index_path(name);
        let Copy::Whole { content, .. } =
            read_copy(self.shared.disk.as_ref(), &path, INDEX_MAGIC, Writers::Ours).await?
        else {
            return Ok(None);
        };
        let mut input = FieldReader::new(&content);
        let Ok(digest) = input.u64("digest at base") else { return Ok(None) };
        let rest = content.get(input.position()..).unwrap_or(&[]);
        Ok(Index::decode(rest).ok().map(|index| (Digest::from_raw(digest), index)))
    }

    /// Writes the index files of sealed segments that have a complete index in memory and no file yet.
    pub(crate) async fn write_indexes(&self) -> io::Result<()> {
        let ready: Vec<(SegmentName, Vec<u8>)> = {
            let mut state = self.state.borrow_mut();
            let sealed = state.segments.len().saturating_sub(1);
            let mut ready = Vec::new();
            for segment in state.segments.iter_mut().take(sealed) {
                let Some(first) = segment.index.first().filter(|first| first.byte == 0) else {
                    continue;
                };
                if std::mem::replace(&mut segment.is_index_stored, true) {
                    continue;
                }
                let mut out = FieldWriter::new();
                out.put_u64(first.digest.raw());
                out.put_raw(&segment.index.encode());
                ready.push((segment.name, out.into_bytes()));
            }
            ready
        };
        for (name, content) in ready {
            let path = self.index_path(name);
            write_copy(self.shared.disk.as_ref(), &path, INDEX_MAGIC, 0, &content).await?;
        }
        Ok(())
    }

    pub(crate) fn index_path(&self, name: SegmentName) -> PathBuf {
        self.segment_path(name).with_extension("index")
    }
}
