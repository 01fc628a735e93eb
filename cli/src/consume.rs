//! `levada consume`: records to stdout, per partition in order.

mod format;
mod from;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use levada_client::consumer::{
    Consumer, ConsumerOptions, OutOfRange, PartitionRecords, Position, VisitError,
};
use levada_client::{AutoCreate, Cluster};
use levada_record::{Offset, Timestamp};
use tokio::time::Duration;

use crate::args::{ConnectArgs, Output};
use crate::cluster::{block_on, connect};
use crate::output::stdout;
use crate::progress::{Counted, Progress};
use format::Format;
use from::From;

/// How long to wait for records before looking around.
const POLL: Duration = Duration::from_millis(500);

/// Options of `levada consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Where to begin: start, end, an offset, or @TIME: @2026-01-31T12:00:00Z, @1769860800000 (ms),
    /// @-15m (ago; s, m, h, d)
    #[arg(long, default_value = "start", allow_hyphen_values = true)]
    from: String,
    /// Reads these partitions only
    #[arg(long, short, value_delimiter = ',')]
    partition: Vec<i32>,
    /// Consumer group (not served yet)
    #[arg(long)]
    group: Option<String>,
    /// Ends after so many records
    #[arg(long, short = 'n')]
    max: Option<u64>,
    /// Ends where the partitions ended when it began
    #[arg(long, short = 'e')]
    until_end: bool,
    /// How a record is printed: %v value, %k key, %o offset, %p partition, %t topic, %T time in ms,
    /// %h headers, %V and %K lengths in bytes (-1: null), %% percent; \n, \t, \r, \0, \\
    #[arg(long, short, default_value = "%v\\n")]
    format: String,
}

pub(crate) fn run(args: &ConsumeArgs, to: &ConnectArgs) -> anyhow::Result<ExitCode> {
    if let Some(group) = &args.group {
        bail!(
            "--group {group}: brokers do not serve consumer groups yet; without --group, partitions are read directly"
        );
    }
    let from = From::parse(&args.from)?;
    let format = match to.output {
        Output::Json => Format::Json,
        Output::Table => Format::parse(&args.format)?,
    };
    block_on(async {
        let cluster = connect(to).await?;
        consume(args, &cluster, from.position(present()), &format).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The present.
fn present() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "what the user means by ago")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

async fn consume(
    args: &ConsumeArgs,
    cluster: &Cluster,
    position: Position,
    format: &Format,
) -> anyhow::Result<()> {
    let topic = cluster.topic(&args.topic, AutoCreate::Never).await?;
    let all: Vec<i32> = topic.partitions.iter().map(|partition| partition.index).collect();
    if let Some(missing) = args.partition.iter().find(|wanted| !all.contains(wanted)) {
        bail!("topic {} has no partition {missing}: it has {}", args.topic, all.len());
    }
    let partitions = if args.partition.is_empty() { all } else { args.partition.clone() };
    let options = ConsumerOptions { out_of_range: OutOfRange::Start, ..Default::default() };
    let mut consumer = Consumer::new(cluster.clone(), options);
    consumer.assign_all(&args.topic, &partitions, position).await?;
    let ends = if args.until_end {
        Some(consumer.offsets(&args.topic, &partitions, Position::End).await?)
    } else {
        None
    };
    let total = ends.as_ref().map(|ends| {
        let left = ends.iter().map(|(partition, end)| {
            let next = consumer.position(&args.topic, *partition).unwrap_or(*end);
            u64::try_from(end.since(next)).unwrap_or(0)
        });
        left.sum::<u64>().min(args.max.unwrap_or(u64::MAX))
    });
    let mut printer = Printer {
        format,
        left: args.max.unwrap_or(u64::MAX),
        printed: 0,
        out: stdout(),
        scratch: Vec::new(),
        line: Vec::new(),
    };
    let mut progress = Progress::new(total, Counted::Records);
    // Records on a terminal are progress enough.
    let silent = std::io::IsTerminal::is_terminal(&std::io::stdout());
    while printer.left > 0 && !reached(&consumer, &args.topic, ends.as_ref()) {
        for records in consumer.poll(POLL).await? {
            let end = ends.as_ref().and_then(|ends| ends.get(&records.partition)).copied();
            printer.print(&records, end)?;
            if end.is_some_and(|end| end <= records.end) {
                consumer.unassign(&args.topic, records.partition);
            }
        }
        printer.out.flush()?;
        if !silent {
            progress.set(printer.printed);
        }
    }
    progress.clear();
    printer.out.flush()?;
    eprintln!("{} records", printer.printed);
    Ok(())
}

/// Whether every partition was read up to its end.
fn reached(consumer: &Consumer, topic: &str, ends: Option<&BTreeMap<i32, Offset>>) -> bool {
    let Some(ends) = ends else { return false };
    // A partition that was read up to its end is not assigned any more.
    let open = |(partition, end): (&i32, &Offset)| {
        consumer.position(topic, *partition).is_some_and(|next| next < *end)
    };
    !ends.iter().any(open)
}

struct Printer<'a, W: Write> {
    format: &'a Format,
    left: u64,
    printed: u64,
    out: W,
    scratch: Vec<u8>,
    line: Vec<u8>,
}

impl<W: Write> Printer<'_, W> {
    /// Prints records below `end`, as many as are left.
    fn print(&mut self, records: &PartitionRecords, end: Option<Offset>) -> anyhow::Result<()> {
        let Self { format, left, printed, out, scratch, line } = self;
        let walked = records.visit(scratch, |record| {
            if *left == 0 || end.is_some_and(|end| end <= record.offset) {
                return Err(ControlFlow::Break(()));
            }
            line.clear();
            format.write(line, &records.topic, records.partition, record);
            out.write_all(line).map_err(ControlFlow::Continue)?;
            *left -= 1;
            *printed += 1;
            Ok(())
        });
        match walked {
            Ok(()) | Err(VisitError::Visitor(ControlFlow::Break(()))) => Ok(()),
            Err(VisitError::Visitor(ControlFlow::Continue(error))) => Err(error.into()),
            Err(VisitError::Batch(error)) => {
                bail!("{}-{}: damaged records: {error}", records.topic, records.partition)
            }
        }
    }
}
