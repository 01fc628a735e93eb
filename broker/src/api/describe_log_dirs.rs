//! `DescribeLogDirs`: what each partition of this broker takes on disk, and what is left there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use levada_record::{PartitionId, PartitionIndex, TopicId};

use super::change;
use super::context::Context;
use crate::image::ImageView;
use crate::runtime::space;
use crate::shard::Shard;

/// One partition on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    id: PartitionId,
    bytes: u64,
    /// Records above the end of the log that are committed elsewhere.
    lag: i64,
}

/// What one shard says.
#[derive(Debug, Default)]
struct Sizes {
    sizes: Vec<Size>,
    has_failed: bool,
}

/// Asks every shard.
pub async fn handle(
    context: &Context,
    request: &DescribeLogDirsRequest<'_>,
) -> DescribeLogDirsResponse<'static> {
    let shard = &context.shard;
    let asked = request.topics.iter().flatten().map(|topic| topic.partitions.len().max(1)).sum();
    if let Err(refused) = change::check_count(shard, asked) {
        let error_code = refused.code.to_i16();
        return DescribeLogDirsResponse { error_code, ..DescribeLogDirsResponse::default() };
    }
    let image = shard.image.get();
    let wanted = wanted(&image, request).map(Arc::new);
    let mut all = Sizes::default();
    for to in shard.router.shards() {
        let wanted = wanted.clone();
        let work = |there: Rc<Shard>| async move { measure(&there, wanted.as_deref()) };
        // A shard that is gone has nothing to say: the broker stops.
        let Sizes { sizes, has_failed } =
            shard.router.call(shard, to, work).await.unwrap_or_default();
        all.sizes.extend(sizes);
        all.has_failed |= has_failed;
    }
    let directory = &shard.config.data_dir;
    let log_dir = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
    let mut result = DescribeLogDirsResult {
        log_dir: log_dir.to_string_lossy().into_owned().into(),
        ..DescribeLogDirsResult::default()
    };
    if all.has_failed {
        result.error_code = ErrorCode::KafkaStorageError.to_i16();
    } else {
        result.topics = by_topic(&image, &all.sizes);
    }
    match space::of(directory.clone()).await {
        Ok(space) => {
            result.total_bytes = signed(space.total_bytes);
            result.usable_bytes = signed(space.free_bytes);
        }
        Err(error) => tracing::warn!(path = %directory.display(), %error, "measure free space"),
    }
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

/// The partitions that are asked for; `None` for all. Those that do not exist are passed over.
fn wanted(image: &ImageView, request: &DescribeLogDirsRequest<'_>) -> Option<HashSet<PartitionId>> {
    let topics = request.topics.as_ref()?;
    let known = topics.iter().filter_map(|asked| Some((asked, image.topic_named(&asked.topic)?)));
    let partitions = known.flat_map(|(asked, topic)| {
        let id = |index: &i32| PartitionId::new(topic.image.id, PartitionIndex(*index));
        asked.partitions.iter().map(id).collect::<Vec<_>>()
    });
    Some(partitions.collect())
}

fn measure(shard: &Shard, wanted: Option<&HashSet<PartitionId>>) -> Sizes {
    let has_failed = shard.store().is_none_or(|store| store.failure().is_some());
    let sizes = shard
        .partitions()
        .into_iter()
        .filter(|partition| wanted.is_none_or(|wanted| wanted.contains(&partition.id())))
        .map(|partition| {
            let log = partition.log();
            let lag = log.high_watermark().since(log.log_end()).max(0);
            Size { id: partition.id(), bytes: log.size_bytes(), lag }
        })
        .collect();
    Sizes { sizes, has_failed }
}

fn by_topic(image: &ImageView, sizes: &[Size]) -> Vec<DescribeLogDirsTopic<'static>> {
    let mut topics: HashMap<TopicId, Vec<&Size>> = HashMap::new();
    for size in sizes {
        topics.entry(size.id.topic).or_default().push(size);
    }
    // One that was created or deleted meanwhile has no name here: it is passed over.
    let named: BTreeMap<&str, Vec<&Size>> = topics
        .into_iter()
        .filter_map(|(id, sizes)| Some((image.topic(id)?.image.name.as_str(), sizes)))
        .collect();
    named
        .into_iter()
        .map(|(name, mut sizes)| {
            sizes.sort_by_key(|size| size.id.index);
            let partitions = sizes.into_iter().map(|size| DescribeLogDirsPartition {
                partition_index: size.id.index.0,
                partition_size: signed(size.bytes),
                offset_lag: size.lag,
                is_future_key: false,
            });
            DescribeLogDirsTopic { name: name.to_owned().into(), partitions: partitions.collect() }
        })
        .collect()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
