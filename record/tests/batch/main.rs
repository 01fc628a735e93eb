//! Claims about the bytes of a batch: they survive, others understand them, damage is found.
//! Everything goes through the crate's public door.

#[cfg(test)]
mod columns;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod records;
#[cfg(test)]
mod round_trip;
