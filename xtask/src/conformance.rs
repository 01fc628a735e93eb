//! `cargo xtask conformance`: foreign Kafka clients against a fresh broker.
//!
//! Every client installs itself into `target/conformance/` from its package registry and performs the
//! operations of [`operation::OPERATIONS`], each a small check with its data compared. The result is a matrix of
//! operations × clients; the last line on stdout is `N passed, N failed, N skipped`, the exit code 1 when
//! something failed. `--control` runs the same suite against Apache Kafka, which shows that a failure is the
//! broker's and not the suite's.

pub(crate) mod broker;
mod client;
mod clock;
mod command;
mod console_tools;
mod driver;
pub(crate) mod install;
mod kcat;
mod matrix;
mod murmur2;
mod operation;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, ensure};

use broker::{Broker, BrokerKind};
use client::{Client, Column, Outcome, Request};
use matrix::Matrix;
use operation::{Needs, OPERATIONS, Operation};

/// What to run, and against what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these clients.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    clients: Vec<Client>,
    /// Only these operations.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    operations: Vec<String>,
    /// A broker that runs already; operations that restart the broker are skipped.
    #[arg(long, alias = "against", value_name = "HOST:PORT", conflicts_with = "control")]
    bootstrap: Option<String>,
    /// Runs the suite against Apache Kafka, fetched through Maven: a test of the suite.
    #[arg(long)]
    control: bool,
    /// Builds and runs the broker without optimisation.
    #[arg(long)]
    debug: bool,
    /// Clients that run at the same time.
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    jobs: usize,
}

/// All cells of one client: the outcome and the time that it took, per operation.
struct ColumnResult {
    client: Client,
    outcomes: Vec<(&'static Operation, Outcome)>,
}

/// Runs the suite; ends the process with exit code 1 when an operation failed.
///
/// # Errors
/// When the broker does not build or start, an operation's name is unknown, or the results cannot be written.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let directory = root().join("target/conformance");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let operations = chosen_operations(&options.operations)?;
    let clients =
        if options.clients.is_empty() { Client::all().to_vec() } else { options.clients.clone() };

    // The compiler and the registries need different things of the machine: at the same time.
    let (kind, installed) = thread::scope(|scope| {
        let installs: Vec<_> = clients
            .iter()
            .map(|client| {
                let directory = &directory;
                (*client, scope.spawn(move || install::install(*client, directory)))
            })
            .collect();
        let jars = options.control.then(|| scope.spawn(|| install::java(&directory)));
        let kind = match (&options.bootstrap, jars) {
            (Some(_), _) => Ok(None),
            (None, Some(jars)) => jars.join().expect("installers do not panic").map(|jars| {
                let jvm = vec!["-Xmx512m".to_owned()];
                Some(BrokerKind::Apache { jars, properties: Vec::new(), jvm })
            }),
            (None, None) => broker::build(options.debug)
                .map(|binary| Some(BrokerKind::Levada { binary, arguments: Vec::new() })),
        };
        let installed: Vec<_> = installs
            .into_iter()
            .map(|(client, thread)| (client, thread.join().expect("installers do not panic")))
            .collect();
        (kind, installed)
    });
    let kind = kind?;

    let suite_broker = match &kind {
        Some(kind) => Some(Broker::start(kind, &directory.join("brokers/suite"))?),
        None => None,
    };
    let bootstrap = match (&suite_broker, &options.bootstrap) {
        (Some(broker), _) => broker.address().to_owned(),
        (None, Some(address)) => address.clone(),
        (None, None) => unreachable!("without --bootstrap a broker was started"),
    };
    let served = wire::api_versions(&bootstrap).context("ask the broker for its API versions")?;

    let suite = Suite {
        directory,
        kind,
        bootstrap,
        served,
        operations,
        run: clock::run_number(),
        keys: murmur2::expected_partitions(operation::KEY_PARTITIONS),
    };
    let results = suite.perform(installed, options.jobs);
    drop(suite_broker);

    let matrix = Matrix::new(suite.operations.clone(), results);
    matrix.write_json(&suite.directory.join("result.json"))?;
    if matrix.print()? {
        return Ok(());
    }
    // The promised line is the last one: no error report may follow it.
    std::process::exit(1);
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the workspace").to_owned()
}

fn chosen_operations(names: &[String]) -> anyhow::Result<Vec<&'static Operation>> {
    for name in names {
        ensure!(
            OPERATIONS.iter().any(|operation| operation.name == name),
            "no operation is called {name}; there are: {}",
            OPERATIONS.iter().map(|operation| operation.name).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(OPERATIONS
        .iter()
        .filter(|operation| names.is_empty() || names.iter().any(|name| name == operation.name))
        .collect())
}

/// What all columns of one run share.
struct Suite {
    directory: PathBuf,
    /// `None` when the broker is somebody else's.
    kind: Option<BrokerKind>,
    bootstrap: String,
    /// API key → versions that the broker advertises.
    served: BTreeMap<i16, (i16, i16)>,
    operations: Vec<&'static Operation>,
    /// Keeps the topics of two runs apart.
    run: u64,
    /// Key → partition of [`operation::KEY_PARTITIONS`], by Java's partitioner.
    keys: BTreeMap<&'static str, i32>,
}

impl Suite {
    /// Runs the columns, `jobs` at a time, and returns them in the order of `installed`.
    fn perform(
        &self,
        installed: Vec<(Client, anyhow::Result<Box<dyn Column + Send>>)>,
        jobs: usize,
    ) -> Vec<ColumnResult> {
        // A thread per column; as many run as there are tokens.
        let (token_sender, tokens) = mpsc::channel();
        for _ in 0..jobs.max(1) {
            token_sender.send(()).expect("the receiver is alive");
        }
        let (result_sender, results) = mpsc::channel();
        thread::scope(|scope| {
            for (position, (client, column)) in installed.into_iter().enumerate() {
                tokens.recv().expect("we hold a sender");
                let (result_sender, token_sender) = (result_sender.clone(), token_sender.clone());
                scope.spawn(move || {
                    let result = self.column(client, column);
                    result_sender.send((position, result)).expect("the results are collected");
                    token_sender.send(()).expect("the receiver outlives the scope");
                });
            }
        });
        drop(result_sender);
        let mut results: Vec<_> = results.into_iter().collect();
        results.sort_by_key(|(position, _)| *position);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn column(
        &self,
        client: Client,
        column: anyhow::Result<Box<dyn Column + Send>>,
    ) -> ColumnResult {
        let mut outcomes = Vec::new();
        match column {
            Err(error) => {
                let reason = format!("not installed: {error:#}");
                eprintln!("{:15} {reason}", client.name());
                for operation in &self.operations {
                    outcomes.push((*operation, Outcome::Skipped { reason: reason.clone() }));
                }
            }
            Ok(mut column) => {
                for operation in &self.operations {
                    let started = clock::now();
                    let outcome = self.cell(client, column.as_mut(), operation);
                    let seconds = clock::now().duration_since(started).as_secs_f64();
                    eprintln!(
                        "{:15} {:26} {} {seconds:.1} s",
                        client.name(),
                        operation.name,
                        outcome.word()
                    );
                    outcomes.push((*operation, outcome));
                }
            }
        }
        ColumnResult { client, outcomes }
    }

    fn cell(
        &self,
        client: Client,
        column: &mut (dyn Column + Send),
        operation: &'static Operation,
    ) -> Outcome {
        if let Some(reason) = operation.needs.missing(&self.served) {
            return Outcome::Skipped { reason: reason.to_owned() };
        }
        let topic = format!("{}-{}-{}", client.name(), operation.name.replace('_', "-"), self.run);
        let mut request = Request {
            operation,
            bootstrap: self.bootstrap.clone(),
            topic,
            keys: &self.keys,
            restart: None,
        };
        if operation.needs == Needs::OwnBroker {
            return self.cell_with_own_broker(client, column, request);
        }
        let outcome = column.perform(&mut request);
        match (&outcome, operation.stored_codec) {
            (Outcome::Passed, Some(_)) if self.leaves_codec_out(client, operation) => {
                Outcome::Skipped {
                    reason: "librdkafka uses lz4 only where FindCoordinator is served, so needs consumer groups"
                        .to_owned(),
                }
            }
            (Outcome::Passed, Some(codec)) => self.check_stored_codec(&request.topic, codec),
            _ => outcome,
        }
    }

    /// librdkafka takes a broker without `FindCoordinator` for one from before lz4, and sends plain records.
    fn leaves_codec_out(&self, client: Client, operation: &Operation) -> bool {
        const FIND_COORDINATOR: i16 = 10;
        operation.name == "lz4"
            && matches!(client, Client::ConfluentKafka | Client::Kcat)
            && !self.served.contains_key(&FIND_COORDINATOR)
    }

    /// Runs an operation that kills its broker: on a broker of its own, so that no other client notices.
    fn cell_with_own_broker(
        &self,
        client: Client,
        column: &mut (dyn Column + Send),
        request: Request<'_>,
    ) -> Outcome {
        let Some(kind) = &self.kind else {
            return Outcome::Skipped { reason: "the suite does not own this broker".to_owned() };
        };
        let directory = self.directory.join("brokers").join(client.name());
        match Broker::start(kind, &directory) {
            Ok(mut broker) => {
                let bootstrap = broker.address().to_owned();
                let mut restart = || broker.kill_and_start();
                let Request { operation, topic, keys, .. } = request;
                let restart = Some(&mut restart as &mut dyn FnMut() -> anyhow::Result<()>);
                column.perform(&mut Request { operation, bootstrap, topic, keys, restart })
            }
            Err(error) => Outcome::Failed {
                detail: format!("the broker does not start: {error:#}"),
                output: String::new(),
            },
        }
    }

    /// A client that silently does not compress would pass every comparison of values.
    fn check_stored_codec(&self, topic: &str, codec: i16) -> Outcome {
        match wire::stored_codecs(&self.bootstrap, topic) {
            // A batch that does not shrink is sent as it is; with several, some do.
            Ok(stored) if stored.contains(&codec) => Outcome::Passed,
            Ok(stored) => Outcome::Failed {
                detail: format!("the stored batches have codecs {stored:?}, expected {codec}"),
                output: String::new(),
            },
            Err(error) => Outcome::Failed {
                detail: format!("fetch the stored batch: {error:#}"),
                output: String::new(),
            },
        }
    }
}
