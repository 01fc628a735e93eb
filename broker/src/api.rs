//! The dispatch table: which APIs are served, and by whom.
//!
//! Produce begins while its connection is being read, so that appends keep their order; every other
//! request runs when its turn to be answered comes.

pub mod context;
pub mod error_code;
pub mod api_versions;
pub mod metadata;
pub mod produce;
pub mod fetch;
pub mod list_offsets;
pub mod init_producer_id;
pub mod offset_for_leader_epoch;
pub mod change;
pub mod create_topics;
pub mod delete_topics;
pub mod create_partitions;
pub mod delete_records;
pub mod describe_configs;
pub mod alter_configs;
pub mod incremental_alter_configs;
pub mod describe_cluster;
pub mod describe_topic_partitions;
pub mod describe_log_dirs;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use levada_protocol::kafka::{ApiKey, Decode as _, HeaderError, Reader, RequestHeader};

use crate::net::connection::CloseReason;
use crate::net::reply::Reply;
use context::{Asked, Context, Frame};

/// The APIs that this broker serves: what is listed here is advertised, and nothing else.
pub const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::CreatePartitions,
    ApiKey::DeleteRecords,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::DescribeCluster,
    ApiKey::DescribeTopicPartitions,
    ApiKey::DescribeLogDirs,
];

/// What becomes of a request.
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// It wants no answer.
    Silent,
    /// The connection is closed.
    Close(CloseReason),
}

/// A request that is being handled.
pub type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome>>>;

/// A request whose handling has begun.
pub struct Begun {
    /// Which API.
    pub api: ApiKey,
    /// How far it is.
    pub state: BegunState,
}

/// See [`Begun`].
pub enum BegunState {
    /// Done.
    Ready(Outcome),
    /// To be polled for its outcome.
    Waiting(OutcomeFuture),
}

/// Begins to handle a request. Waits for nothing but room in the mailboxes of other shards.
///
/// # Errors
/// Why the connection is to be closed.
pub async fn begin(context: &Rc<Context>, frame: Frame) -> Result<Begun, CloseReason> {
    let bytes = frame.bytes.clone();
    let mut reader = Reader::new(&bytes);
    let header = match RequestHeader::decode(&mut reader) {
        Ok(header) => header,
        Err(HeaderError::UnsupportedVersion {
            api_key: ApiKey::ApiVersions,
            correlation_id,
            ..
        }) => {
            let asked = Asked { api: ApiKey::ApiVersions, version: 0, correlation_id };
            let outcome = asked.answer(&api_versions::unsupported());
            return Ok(Begun { api: ApiKey::ApiVersions, state: BegunState::Ready(outcome) });
        }
        Err(error) => return Err(CloseReason::Malformed(error.to_string())),
    };
    let asked = Asked {
        api: header.api_key,
        version: header.api_version,
        correlation_id: header.correlation_id,
    };
    if !SERVED.contains(&asked.api) {
        return Err(CloseReason::Malformed(format!("{} is not served", asked.api)));
    }
    let state = if asked.api == ApiKey::Produce {
        produce::begin(context, asked, reader, frame).await?
    } else {
        let context = Rc::clone(context);
        BegunState::Waiting(Box::pin(async move {
            handle(&context, asked, frame)
                .await
                .unwrap_or_else(|error| Outcome::Close(malformed(asked, &error)))
        }))
    };
    Ok(Begun { api: asked.api, state })
}

/// Handles a request of any API but Produce.
async fn handle(
    context: &Rc<Context>,
    asked: Asked,
    frame: Frame,
) -> Result<Outcome, levada_protocol::kafka::DecodeError> {
    use levada_protocol::kafka as wire;
    let version = asked.version;
    let bytes = frame.bytes.clone();
    let mut reader = Reader::new(&bytes);
    // Read once already when the request began.
    RequestHeader::decode(&mut reader).ok();
    Ok(match asked.api {
        ApiKey::ApiVersions => {
            let request = wire::api_versions::ApiVersionsRequest::decode_all(reader, version)?;
            asked.answer(&api_versions::handle(&request, version))
        }
        ApiKey::Metadata => {
            // Bytes behind the last field are left alone, as Kafka does: librdkafka writes three
            // zeros too many when it asks for all topics with a compact array.
            let request = wire::metadata::MetadataRequest::decode(&mut reader, version)?;
            asked.answer(&metadata::handle(context, &request, version).await)
        }
        ApiKey::Fetch => {
            let request = wire::fetch::FetchRequest::decode_all(reader, version)?;
            let request = fetch::Request::read(&request, version);
            // A fetch may wait for long: it keeps nothing of its frame.
            drop((bytes, frame));
            fetch::handle(context, asked, request).await
        }
        ApiKey::ListOffsets => {
            let request = wire::list_offsets::ListOffsetsRequest::decode_all(reader, version)?;
            asked.answer(&list_offsets::handle(context, &request, version).await)
        }
        ApiKey::InitProducerId => {
            let request =
                wire::init_producer_id::InitProducerIdRequest::decode_all(reader, version)?;
            asked.answer(&init_producer_id::handle(context, &request).await)
        }
        ApiKey::OffsetForLeaderEpoch => {
            let request = wire::offset_for_leader_epoch::OffsetForLeaderEpochRequest::decode_all(
                reader, version,
            )?;
            asked.answer(&offset_for_leader_epoch::handle(context, &request).await)
        }
        _ => return administer(context, asked, frame).await,
    })
}

/// Handles a request that asks for a change of the cluster, or how it is. What may wait for long
/// keeps nothing of its frame.
async fn administer(
    context: &Rc<Context>,
    asked: Asked,
    frame: Frame,
) -> Result<Outcome, levada_protocol::kafka::DecodeError> {
    use levada_protocol::kafka as wire;
    let version = asked.version;
    let bytes = frame.bytes.clone();
    let mut reader = Reader::new(&bytes);
    // Read once already when the request began.
    RequestHeader::decode(&mut reader).ok();
    Ok(match asked.api {
        ApiKey::CreateTopics => {
            let request = wire::create_topics::CreateTopicsRequest::decode_all(reader, version)?;
            let work = create_topics::handle(context, &request);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::DeleteTopics => {
            let request = wire::delete_topics::DeleteTopicsRequest::decode_all(reader, version)?;
            let work = delete_topics::handle(context, &request, version);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::CreatePartitions => {
            let request =
                wire::create_partitions::CreatePartitionsRequest::decode_all(reader, version)?;
            let work = create_partitions::handle(context, &request);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::DeleteRecords => {
            let request = wire::delete_records::DeleteRecordsRequest::decode_all(reader, version)?;
            let work = delete_records::handle(context, &request);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::AlterConfigs => {
            let request = wire::alter_configs::AlterConfigsRequest::decode_all(reader, version)?;
            let work = alter_configs::handle(context, &request);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::IncrementalAlterConfigs => {
            use wire::incremental_alter_configs::IncrementalAlterConfigsRequest;
            let request = IncrementalAlterConfigsRequest::decode_all(reader, version)?;
            let work = incremental_alter_configs::handle(context, &request);
            drop((bytes, frame));
            asked.answer(&work.await)
        }
        ApiKey::DescribeConfigs => {
            let request =
                wire::describe_configs::DescribeConfigsRequest::decode_all(reader, version)?;
            asked.answer(&describe_configs::handle(context, &request))
        }
        ApiKey::DescribeCluster => {
            let request =
                wire::describe_cluster::DescribeClusterRequest::decode_all(reader, version)?;
            asked.answer(&describe_cluster::handle(context, &request))
        }
        ApiKey::DescribeTopicPartitions => {
            use wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
            let request = DescribeTopicPartitionsRequest::decode_all(reader, version)?;
            let (view, names_max) =
                (context.shard.image.get(), context.shard.config.admin_items_max);
            asked.answer(&describe_topic_partitions::handle(&view, &request, names_max))
        }
        ApiKey::DescribeLogDirs => {
            let request =
                wire::describe_log_dirs::DescribeLogDirsRequest::decode_all(reader, version)?;
            asked.answer(&describe_log_dirs::handle(context, &request).await)
        }
        other => Outcome::Close(CloseReason::Malformed(format!("{other} is not served"))),
    })
}

fn malformed(asked: Asked, error: &dyn std::fmt::Display) -> CloseReason {
    CloseReason::Malformed(format!("malformed {} request: {error}", asked.api))
}
