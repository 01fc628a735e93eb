//! Every key of a coordinator's configuration, for the command line and for `docs/configuration.md`.

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) unit: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "only the page of settings shows it"))]
    pub(crate) doc: &'static str,
}

macro_rules! settings {
    ($($key:ident, $unit:literal, $doc:literal;)*) => {
        /// In the order of the configuration.
        pub(crate) const SETTINGS: &[Setting] =
            &[$(Setting { key: stringify!($key), unit: $unit, doc: $doc },)*];
    };
}

settings! {
    id, "number", "This coordinator's number, from 1.";
    listen, "address:port", "For brokers. Port 0 takes any free port.";
    http_listen, "address:port", "For /health, /metrics and /status.";
    http_enabled, "true or false", "Whether to serve HTTP.";
    data_dir, "path", "Directory for the command log and snapshots; made when it is not there.";
    cluster_name, "text", "What people call the cluster; shown, never compared.";
    cluster_id, "text", "The cluster that the data directory must belong to, or will when it is new. \
        Left out: whichever it is, a random one when new.";
    session_ms, "ms", "A broker that was silent for so long is fenced.";
    default_partitions, "partitions", "Partitions of topics whose creator did not say.";
    default_replication_factor, "replicas", "Replicas of such topics, fewer while fewer brokers are alive.";
    max_partitions_per_topic, "partitions", "Most partitions of one topic.";
    max_partitions, "partitions", "Most partitions of all topics.";
    max_topics, "topics", "Most topics.";
    snapshot_log_bytes, "bytes", "A command log of so many bytes is replaced by a snapshot.";
    max_connections, "connections", "Further connections are closed at once.";
    request_budget_bytes, "bytes", "Bytes of all requests that are being received, beyond 16 KiB each.";
    push_budget_bytes, "bytes", "How far one subscriber may lag behind before it is disconnected and asks for everything.";
    first_frame_ms, "ms", "A new connection must send its first request within so many ms.";
    frame_ms, "ms", "A request that has begun must be whole within so many ms.";
    idle_ms, "ms", "A connection without a request for so many ms is closed.";
    write_ms, "ms", "A reader that does not take a frame within so many ms is disconnected.";
}

/// Names and values of the default configuration, as `Debug` prints them.
#[cfg(test)]
pub(crate) fn defaults() -> Vec<(String, String)> {
    let text = format!("{:#?}", levada_coordinator::CoordinatorConfig::default());
    let fields = text.lines().filter_map(|line| {
        let field = line.strip_prefix("    ").filter(|field| !field.starts_with(' '))?;
        let (key, value) = field.split_once(": ")?;
        Some((key.to_owned(), value.trim_end_matches(',').trim_matches('"').to_owned()))
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_keys_of_the_configuration() {
        let keys: Vec<String> = defaults().into_iter().map(|(key, _)| key).collect();
        let table: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(table, keys);
    }
}
