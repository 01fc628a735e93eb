//! Another implementation of the format understands our batches, and we understand its.
//! It keeps headers in a map, so records with a header key twice stay out of this comparison.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use levada_record::{
    BatchBuilder, Compression, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp,
};
use proptest::prelude::*;

use crate::records::{Owned, codec, push, read, records};

const PRODUCER: i64 = 4_000;
const EPOCH: i16 = 12;
const BASE: i64 = 1_000_000;
const SEQUENCE: i32 = 17;
const LEADER_EPOCH: i32 = 3;

fn codec_of_theirs(codec: Compression) -> theirs::Compression {
    match codec {
        Compression::None => theirs::Compression::None,
        Compression::Gzip => theirs::Compression::Gzip,
        Compression::Snappy => theirs::Compression::Snappy,
        Compression::Lz4 => theirs::Compression::Lz4,
        Compression::Zstd => theirs::Compression::Zstd,
    }
}

fn with_unique_header_keys(mut records: Vec<Owned>) -> Vec<Owned> {
    for record in &mut records {
        let mut seen = HashSet::new();
        record.headers.retain(|(key, _)| seen.insert(key.clone()));
    }
    records
}

fn to_theirs(index: usize, record: &Owned) -> theirs::Record {
    let index = i32::try_from(index).unwrap();
    theirs::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: LEADER_EPOCH,
        producer_id: PRODUCER,
        producer_epoch: EPOCH,
        timestamp_type: theirs::TimestampType::Creation,
        offset: BASE + i64::from(index),
        sequence: SEQUENCE + index,
        timestamp: record.timestamp.0,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| {
                let key = StrBytes::from_string(String::from_utf8(key.clone()).unwrap());
                (key, value.clone().map(Bytes::from))
            })
            .collect::<IndexMap<_, _>>(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn they_read_what_we_write(records in records(), codec in codec()) {
        let records = with_unique_header_keys(records);
        let mut builder = BatchBuilder::new(codec)
            .producer(ProducerId(PRODUCER), ProducerEpoch(EPOCH), SEQUENCE)
            .transactional()
            .at(Offset(BASE), LeaderEpoch(LEADER_EPOCH));
        for record in &records {
            push(&mut builder, record);
        }
        let mut bytes = Bytes::from(builder.finish().unwrap());
        let set = theirs::RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert_eq!(set.compression, codec_of_theirs(codec));
        let expected: Vec<_> =
            records.iter().enumerate().map(|(index, record)| to_theirs(index, record)).collect();
        prop_assert_eq!(set.records, expected);
    }

    #[test]
    fn we_read_what_they_write(records in records(), codec in codec()) {
        let records = with_unique_header_keys(records);
        let converted: Vec<_> =
            records.iter().enumerate().map(|(index, record)| to_theirs(index, record)).collect();
        let mut bytes = BytesMut::new();
        let options =
            theirs::RecordEncodeOptions { version: 2, compression: codec_of_theirs(codec) };
        theirs::RecordBatchEncoder::encode(&mut bytes, &converted, &options).unwrap();
        let read = read(&bytes).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for (index, (offset, record)) in read.into_iter().enumerate() {
            prop_assert_eq!(offset, Offset(BASE + i64::try_from(index).unwrap()));
            prop_assert_eq!(&record, &records[index]);
        }
        let header = levada_record::peek_header(&bytes).unwrap();
        prop_assert_eq!(header.max_timestamp,
            records.iter().map(|record| record.timestamp).max().unwrap_or(Timestamp::NONE));
    }
}
