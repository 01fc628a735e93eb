//! How a command becomes committed. The server knows no more than: [`propose`](Consensus::propose)
//! commands, [`advance`](Consensus::advance), apply what is committed, in order.
//!
//! With one member a command is committed once it is on its own disk. More members change what
//! `advance` waits for, and who may propose; nothing outside this file.

use std::ops::Range;

use levada_protocol::cluster::command::Command;

use crate::storage::command_log::Room;
use crate::storage::{Entry, Storage, StorageError};

/// One member's part in deciding what the history is.
#[derive(Debug)]
pub struct Consensus {
    storage: Storage,
    term: u64,
    proposed: Vec<Command>,
}

impl Consensus {
    /// Takes over from whoever wrote in `last_term`.
    pub fn new(storage: Storage, last_term: u64) -> Self {
        Self { storage, term: last_term + 1, proposed: Vec::new() }
    }

    /// The current reign.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What is on disk.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The same, to write snapshots and seals to.
    pub fn storage_mut(&mut self) -> &mut Storage {
        &mut self.storage
    }

    /// Takes commands in; gives the indexes that they will have, if they are ever committed.
    pub fn propose(&mut self, commands: impl IntoIterator<Item = Command>) -> Range<u64> {
        let count = |proposed: &Vec<Command>| u64::try_from(proposed.len()).unwrap_or(u64::MAX);
        let start = self.storage.next_index() + count(&self.proposed);
        self.proposed.extend(commands);
        start..self.storage.next_index() + count(&self.proposed)
    }

    /// Moves on: makes durable what was proposed and gives what is committed now, in order. Nobody
    /// may hear of a command before this has returned it.
    ///
    /// # Errors
    /// [Harmless](StorageError::is_harmless) ones when what was proposed is dropped, as if it had
    /// never been. With others it cannot be told whether the commands are durable: the process must
    /// end, its next start will tell.
    pub fn advance(&mut self) -> Result<Vec<Entry>, StorageError> {
        if self.proposed.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.storage.next_index();
        let commands = std::mem::take(&mut self.proposed);
        let encoded: Vec<Vec<u8>> = commands.iter().map(Command::encode).collect();
        let is_spared = commands.iter().all(|command| room(command) == Room::Spare);
        let room = if is_spared { Room::Spare } else { Room::Common };
        self.storage.append(self.term, &encoded, room)?;
        let term = self.term;
        Ok((first..).zip(commands).map(|(index, command)| Entry { index, term, command }).collect())
    }
}

/// What a command may use when the disk is full: brokers come and go even then, and what shrinks the
/// image helps.
fn room(command: &Command) -> Room {
    match command {
        Command::RegisterBroker { .. }
        | Command::SetBrokerState { .. }
        | Command::DeleteTopic { .. } => Room::Spare,
        Command::CreateTopic { .. }
        | Command::AddPartitions { .. }
        | Command::ConfigureTopic { .. }
        | Command::AllocateProducerIds { .. }
        | Command::ConfirmReplicas { .. } => Room::Common,
    }
}
