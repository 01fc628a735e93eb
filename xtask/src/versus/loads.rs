//! The loads that are compared.

/// A load, as options of `levada bench run`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    pub(super) arguments: &'static [&'static str],
}

/// In the order in which they are run.
pub(super) const LOADS: &[Load] = &[
    Load {
        name: "maximum",
        about: "as much as goes in, 1 KiB, one partition",
        arguments: &["--mode", "produce", "--client", "librdkafka"],
    },
    Load {
        name: "spread-1",
        about: "30,000 records a second of 1 KiB over 1 partition",
        arguments: &["--mode", "produce", "--client", "librdkafka", "--rate", "30000"],
    },
    Load {
        name: "spread-100",
        about: "the same over 100 partitions",
        arguments: &[
            "--mode",
            "produce",
            "--client",
            "librdkafka",
            "--rate",
            "30000",
            "--partitions",
            "100",
            "--keys",
            "random",
        ],
    },
    Load {
        name: "spread-1000",
        about: "the same over 1,000 partitions, by the Rust client (librdkafka sends a request per partition)",
        arguments: &[
            "--mode",
            "produce",
            "--encoding",
            "kafka",
            "--rate",
            "30000",
            "--partitions",
            "1000",
            "--keys",
            "random",
            "--key-count",
            "100000",
        ],
    },
    Load {
        name: "end-to-end",
        about: "20,000 records a second of 1 KiB over 6 partitions, linger 0, to a consumer",
        arguments: &[
            "--mode",
            "end-to-end",
            "--client",
            "librdkafka",
            "--rate",
            "20000",
            "--partitions",
            "6",
            "--linger-ms",
            "0",
        ],
    },
    Load {
        name: "consume",
        about: "two million records of 1 KiB, read as fast as they come",
        arguments: &["--mode", "consume", "--client", "librdkafka", "--backlog", "2000000"],
    },
];
