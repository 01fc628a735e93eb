//! Accepts connections on one shard.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt as _;

use super::connection::Connection;
use crate::metrics::add;
use crate::runtime::socket::Listener;
use crate::shard::Shard;

/// Pause after an error of accept: most say that there are too many open files, and stay so.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// Accepts until the broker stops. Each connection is a task of its own. `kafka_port` is the port for clients of any
/// partition, which this need not be.
pub async fn run_listener(shard: Rc<Shard>, listener: Listener, kafka_port: u16) {
    loop {
        let accepting = async { Some(listener.accept().await) };
        let stopping = async {
            shard.stopping.raised().await;
            None
        };
        match stopping.or(accepting).await {
            None => return,
            Some(Ok(socket)) => {
                if shard.connections.len() as u64 >= shard.config.connections_max {
                    add(&shard.metrics.connections_refused_total, 1);
                    shard.connections.complain(&shard, socket.peer(), &"too many connections");
                    continue;
                }
                add(&shard.metrics.connections_accepted_total, 1);
                let connection = Connection::new(&shard, socket, kafka_port);
                let shard = Rc::clone(&shard);
                let runtime = Rc::clone(&shard.runtime);
                runtime.spawn("connection", Box::pin(connection.serve(shard)));
            }
            Some(Err(error)) => {
                add(&shard.metrics.accept_errors_total, 1);
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    shard.connections.complain_of_accept(&shard, &error);
                    shard.runtime.sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }
}
