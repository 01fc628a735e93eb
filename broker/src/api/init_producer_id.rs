//! `InitProducerId`: identities for idempotent producers, from blocks that the controller hands out.

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use levada_record::ProducerEpoch;

use super::context::Context;
use crate::controller_link::ControllerError;

/// Gives a new identity. One for transactions is refused: transactions do not exist here yet.
pub async fn handle(
    context: &Context,
    request: &InitProducerIdRequest<'_>,
) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        return refusal(ErrorCode::UnsupportedVersion);
    }
    // A producer that lost its sequence comes back with what it has; without transactions a new
    // identity is as good as a new epoch, and cannot clash with the old one.
    let shard = &context.shard;
    let epoch = shard.image.get().image.broker(shard.broker).map(|broker| broker.epoch);
    let Some(epoch) = epoch else { return refusal(ErrorCode::CoordinatorLoadInProgress) };
    let taken =
        shard.producer_ids.take(&shard.controller, &shard.runtime, shard.broker, epoch).await;
    match taken {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.0,
            producer_epoch: ProducerEpoch::ZERO.0,
            ..InitProducerIdResponse::default()
        },
        Err(error) => {
            tracing::warn!(%error, "no producer id from the controller");
            refusal(match error {
                ControllerError::Unavailable | ControllerError::Refused(_) => {
                    ErrorCode::CoordinatorLoadInProgress
                }
                ControllerError::TimedOut => ErrorCode::RequestTimedOut,
            })
        }
    }
}

fn refusal(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: code.to_i16(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}
