//! Producer ids that a shard may give out: blocks from the controller, each id given once.

use std::cell::Cell;

use levada_protocol::cluster::id::BrokerEpoch;
use levada_protocol::cluster::reply::Reply;
use levada_protocol::cluster::request::Request;
use levada_record::{BrokerId, ProducerId};

use crate::controller_link::{ASK_WITHIN, ControllerError, ControllerHandle};
use levada_engine::SharedRuntime;

/// What is left of the current block.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
}

impl ProducerIds {
    /// An id that nobody else has or gets, asking the controller when the block is used up.
    ///
    /// # Errors
    /// [`ControllerError`]; the client is to try again.
    pub async fn take(
        &self,
        controller: &ControllerHandle,
        runtime: &SharedRuntime,
        broker: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<ProducerId, ControllerError> {
        if let Some(id) = self.take_from_block() {
            return Ok(id);
        }
        let request = Request::AllocateProducerIds { broker, epoch };
        match controller.ask(runtime, request, ASK_WITHIN).await? {
            Reply::ProducerIds(block) => {
                // Two who asked at once both got a block; the ids of the one not kept are lost,
                // which is what ids are for.
                self.next.set(block.first.0);
                self.end.set(block.first.0.saturating_add(i64::from(block.count)));
                self.take_from_block().ok_or(ControllerError::Unavailable)
            }
            _ => Err(ControllerError::Unavailable),
        }
    }

    fn take_from_block(&self) -> Option<ProducerId> {
        let next = self.next.get();
        if next >= self.end.get() {
            return None;
        }
        self.next.set(next + 1);
        Some(ProducerId(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_of_a_block_is_given_once() {
        let ids = ProducerIds::default();
        assert_eq!(ids.take_from_block(), None);
        ids.next.set(7);
        ids.end.set(9);
        let given: Vec<_> = std::iter::from_fn(|| ids.take_from_block()).collect();
        assert_eq!(given, [ProducerId(7), ProducerId(8)]);
    }
}
