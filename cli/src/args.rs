//! The command line: what all commands share, and which there are.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Event streaming: a cluster, and the tools to use it.
#[derive(Debug, Parser)]
#[command(name = "levada", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Whom to talk to, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Brokers to begin with: host:port, several separated by commas
    #[arg(long, global = true, env = "LEVADA_BOOTSTRAP", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap: String,
    /// How results are printed
    #[arg(
        long,
        short = 'o',
        global = true,
        env = "LEVADA_OUTPUT",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: Output,
}

/// Who must have a record before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksArg {
    /// Nobody
    #[value(name = "0")]
    Zero,
    /// The leader
    #[value(name = "1")]
    One,
    /// All replicas in sync
    #[value(alias = "-1")]
    All,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// What is logged to stderr.
#[derive(Debug, Args)]
pub(crate) struct LoggingArgs {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as
    /// `levada_engine=debug`; info for processes that serve, else warn
    #[arg(long, global = true, env = "LEVADA_LOG")]
    pub(crate) log: Option<String>,
    /// How it is logged
    #[arg(long, global = true, env = "LEVADA_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a whole cluster in this process: a coordinator and a broker
    Dev(crate::dev::DevArgs),
    /// Runs one broker
    Broker(crate::broker::BrokerArgs),
    /// Runs one coordinator
    Coordinator(crate::coordinator::CoordinatorArgs),
    /// Creates, lists, describes, alters and deletes topics
    #[command(subcommand)]
    Topic(crate::topic::TopicCommand),
    /// Writes records: lines of stdin or of a file
    Produce(crate::produce::ProduceArgs),
    /// Reads records
    Consume(crate::consume::ConsumeArgs),
    /// Consumer groups (not served yet)
    #[command(disable_help_flag = true)]
    Group(crate::group::GroupArgs),
    /// Shows the cluster and its brokers
    #[command(subcommand)]
    Cluster(crate::cluster::ClusterCommand),
    /// Prints or checks segment files, batch by batch
    #[command(subcommand)]
    Log(crate::log::LogCommand),
    /// Measures a cluster, honestly
    #[command(subcommand)]
    Bench(crate::bench::BenchCommand),
    /// Checks whether this machine can run a broker well, and says what to do
    Doctor(crate::doctor::DoctorArgs),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Broker(_) | Self::Coordinator(_))
    }

    /// Whether it has something to tidy up or to tell when it is told to stop.
    pub(crate) fn stops_cleanly(&self) -> bool {
        self.serves() || matches!(self, Self::Bench(command) if command.runs())
    }
}

/// Splits `key=value`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    let key = key.trim();
    if key.is_empty() {
        return Err(format!("{text:?} has no key before the ="));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs_need_a_key_and_may_have_any_value() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("ab").is_err());
    }
}
