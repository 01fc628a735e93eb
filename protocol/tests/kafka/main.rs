//! The Kafka codec against the crate kafka-protocol, and against bytes that nobody should send.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod random;
#[cfg(test)]
#[expect(dead_code, reason = "the generator uses more of the definitions than the tests")]
#[path = "../../../xtask/src/codegen/schema.rs"]
mod schema;
#[cfg(test)]
mod splice;
