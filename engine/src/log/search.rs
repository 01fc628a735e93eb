//! Places in a log: by time, by offset; and what its producers were at one.

use std::rc::Rc;

use levada_record::limits::INFLATED_BYTES_MAX_DEFAULT;
use levada_record::{BatchView, Offset, Timestamp, VerifyLimits};

use crate::digest::Digest;
use crate::error::ReadError;
use crate::log::read::{Met, Walk, WalkPoint, out_of_range};
use crate::log::{Boundary, Log};
use crate::producers::Producers;
use crate::segment::index::IndexEntry;
use crate::segment::layout::SegmentName;

impl Log {
    /// The first record at or after `at` below `end`: its timestamp and offset.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn find_time(
        self: &Rc<Self>,
        at: Timestamp,
        end: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, ReadError> {
        let candidates: Vec<SegmentName> = {
            let state = self.state.borrow();
            let found = state.segments.iter().filter(|s| s.max_timestamp >= at.as_ms());
            found.map(|segment| segment.name).collect()
        };
        let log_start = self.log_start();
        for name in candidates {
            let Some(start) = self.time_floor(name, at.as_ms()).await? else { continue };
            let mut found = None;
            self.walk(name, start.into(), |met| {
                if met.header.base_offset >= end {
                    return Walk::Stop;
                }
                if met.header.max_timestamp >= at {
                    let mut scratch = Vec::new();
                    found = records_of(&met, &mut scratch, |timestamp, offset| {
                        timestamp >= at && offset >= log_start && offset < end
                    });
                }
                if found.is_some() { Walk::Stop } else { Walk::On }
            })
            .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The record with the newest timestamp below `end`: its timestamp and offset; the first one of several.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn max_timestamp(
        self: &Rc<Self>,
        end: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, ReadError> {
        let newest = self.state.borrow().segments.iter().map(|s| s.max_timestamp).max();
        match newest {
            Some(newest) if newest >= 0 => self.find_time(Timestamp(newest), end).await,
            _ => Ok(None),
        }
    }

    async fn time_floor(
        self: &Rc<Self>,
        name: SegmentName,
        at: i64,
    ) -> Result<Option<IndexEntry>, ReadError> {
        loop {
            {
                let state = self.state.borrow();
                let Some(segment) = state.segments.iter().find(|s| s.name == name) else {
                    return Ok(None);
                };
                if segment.length == 0 {
                    return Ok(None);
                }
                if segment.index.is_complete() {
                    return Ok(segment.index.floor_by_time(at));
                }
            }
            self.load_index(name).await?;
        }
    }

    /// The last batch boundary at or below `offset`, and in which segment.
    pub(crate) async fn boundary_below(
        self: &Rc<Self>,
        offset: Offset,
    ) -> Result<(SegmentName, Boundary), ReadError> {
        loop {
            let (name, start, entry) = {
                let state = self.state.borrow();
                let Some(segment) = state.segments.iter().rev().find(|s| s.name.base <= offset)
                else {
                    return Err(out_of_range(&state, offset));
                };
                (segment.name, segment.start, segment.index.floor(offset))
            };
            let is_empty = self.fetch(name, 0, 1).await?.is_empty();
            let Some(entry) = entry else {
                if is_empty {
                    let state = self.state.borrow();
                    let digest = state.digest;
                    let boundary = Boundary { position: start, offset, digest, max_timestamp: -1 };
                    return Ok((name, boundary));
                }
                self.load_index(name).await?;
                continue;
            };
            let end = self
                .walk(name, entry.into(), |met| {
                    if met.header.end_offset() > offset { Walk::Stop } else { Walk::On }
                })
                .await?;
            let position = start + end.byte;
            let WalkPoint { offset, digest, max_timestamp, .. } = end;
            return Ok((name, Boundary { position, offset, digest, max_timestamp }));
        }
    }

    /// The producers as of `end` in the segment `name`, walked from its base on with what was known there.
    pub(crate) async fn producers_at(
        self: &Rc<Self>,
        name: SegmentName,
        end: Offset,
    ) -> Result<Producers, ReadError> {
        let mut producers = Producers::default();
        let names: Vec<(SegmentName, Digest)> = {
            let state = self.state.borrow();
            let mut before = self.base_digest.get();
            let mut names = Vec::new();
            for segment in state.segments.iter().filter(|s| s.name.base <= name.base) {
                names.push((segment.name, before));
                before = segment.digest;
            }
            names
        };
        for (name, digest) in names {
            let start = WalkPoint { byte: 0, offset: name.base, digest, max_timestamp: -1 };
            self.walk(name, start, |met| {
                if met.header.end_offset() > end {
                    return Walk::Stop;
                }
                if let Some(batch) = crate::log::produced_batch(&met.header) {
                    let at = met.header.max_timestamp.as_ms();
                    producers.note(&batch, met.header.base_offset, met.header.end_offset(), at);
                }
                Walk::On
            })
            .await?;
        }
        Ok(producers)
    }
}

/// The first record of a batch for which `wanted` holds.
fn records_of(
    met: &Met<'_>,
    scratch: &mut Vec<u8>,
    wanted: impl Fn(Timestamp, Offset) -> bool,
) -> Option<(Timestamp, Offset)> {
    let view = BatchView::verify(met.bytes, &VerifyLimits::DEFAULT).ok()?;
    let records = view.records(scratch, INFLATED_BYTES_MAX_DEFAULT).ok()?;
    for record in records {
        let record = record.ok()?;
        if wanted(record.timestamp, record.offset) {
            return Some((record.timestamp, record.offset));
        }
    }
    None
}
