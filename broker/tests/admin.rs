//! What administrative tools ask of a broker: topics made, changed, shown and deleted over real
//! sockets and a real disk.

#[path = "harness/cluster.rs"]
mod cluster;
#[path = "admin/ask.rs"]
mod ask;
#[path = "admin/topics.rs"]
mod topics;
#[path = "admin/settings.rs"]
mod settings;
#[path = "admin/records.rs"]
mod records;
#[path = "admin/showing.rs"]
mod showing;
