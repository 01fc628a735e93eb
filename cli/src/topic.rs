//! `levada topic`: creates, lists, describes, alters and deletes topics.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use levada_client::admin::{ConfigChange, ConfigEntry, ConfigSource, NewTopic, Resource};
use levada_client::consumer::{Consumer, ConsumerOptions, Position};
use levada_client::metadata::TopicView;
use levada_client::{Admin, Cluster};
use levada_record::Offset;
use serde_json::{Value, json};

use crate::args::{ConnectArgs, Output, parse_pair};
use crate::cluster::{block_on, connect};
use crate::output::{Table, print_json, print_line, stdout};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Creates topics
    Create(CreateArgs),
    /// Lists topics
    List(ListArgs),
    /// Shows topics with their partitions and settings
    Describe(DescribeArgs),
    /// Changes settings, or adds partitions
    Alter(AlterArgs),
    /// Deletes topics with all their records
    Delete(DeleteArgs),
}

/// Options of `levada topic create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
    /// Number of partitions; the cluster's default when left out
    #[arg(short, long)]
    partitions: Option<i32>,
    /// Number of replicas of each partition; the cluster's default when left out
    #[arg(short, long)]
    replicas: Option<i16>,
    /// A setting that differs from its default
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    configs: Vec<(String, String)>,
    /// Checks whether the topics could be created, creates nothing
    #[arg(long)]
    dry_run: bool,
}

/// Options of `levada topic list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Lists the topics of the brokers themselves, too
    #[arg(long)]
    internal: bool,
}

/// Options of `levada topic describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
    /// Shows every setting with its meaning, not only those that were set
    #[arg(long)]
    all: bool,
}

/// Options of `levada topic alter`.
#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the topic
    name: String,
    /// Number of partitions it shall have in all
    #[arg(short, long)]
    partitions: Option<i32>,
    /// Sets a setting
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    configs: Vec<(String, String)>,
    /// Sets a setting back to its default
    #[arg(long, value_name = "KEY")]
    reset: Vec<String>,
}

/// Options of `levada topic delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) fn run(command: &TopicCommand, to: &ConnectArgs) -> anyhow::Result<ExitCode> {
    if let TopicCommand::Alter(args) = command
        && args.partitions.is_none()
        && args.configs.is_empty()
        && args.reset.is_empty()
    {
        anyhow::bail!("nothing to change: give --partitions, --config or --reset");
    }
    block_on(async {
        let cluster = connect(to).await?;
        let admin = Admin::new(cluster);
        match command {
            TopicCommand::Create(args) => create(&admin, args, to.output).await,
            TopicCommand::List(args) => list(&admin, args, to.output).await,
            TopicCommand::Describe(args) => describe(&admin, args, to.output).await,
            TopicCommand::Alter(args) => alter(&admin, args, to.output).await,
            TopicCommand::Delete(args) => delete(&admin, args, to.output).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(admin: &Admin, args: &CreateArgs, output: Output) -> anyhow::Result<()> {
    let mut created = Vec::new();
    for name in &args.names {
        let topic = NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replicas: args.replicas,
            configs: args.configs.clone(),
        };
        let topic = admin.create_topic(&topic, args.dry_run).await?;
        if output == Output::Table {
            let verb = if args.dry_run { "would create" } else { "created" };
            let partitions = topic.partitions.map(|count| format!(", partitions {count}"));
            let replicas = topic.replicas.map(|count| format!(", replicas {count}"));
            let details = partitions.unwrap_or_default() + &replicas.unwrap_or_default();
            print_line(&format!("{verb} topic {name}{details}"))?;
        }
        created.push(json!({
            "name": topic.name,
            "id": (!topic.id.is_zero()).then(|| topic.id.to_string()),
            "partitions": topic.partitions,
            "replicas": topic.replicas,
            "created": !args.dry_run,
        }));
    }
    if output == Output::Json {
        print_json(&Value::Array(created))?;
    }
    Ok(())
}

async fn list(admin: &Admin, args: &ListArgs, output: Output) -> anyhow::Result<()> {
    let mut topics = admin.list_topics().await?;
    topics.retain(|topic| args.internal || !topic.internal);
    match output {
        Output::Json => {
            let rows = topics.iter().map(|topic| {
                json!({
                    "name": &*topic.name,
                    "id": topic.id.to_string(),
                    "internal": topic.internal,
                    "partitions": topic.partitions.len(),
                    "replicas": replicas(topic),
                })
            });
            print_json(&rows.collect())?;
        }
        Output::Table => {
            let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS"]);
            for topic in &topics {
                let counts = [topic.partitions.len().to_string(), replicas(topic).to_string()];
                table.row([topic.name.to_string()].into_iter().chain(counts).collect());
            }
            table.print()?;
        }
    }
    Ok(())
}

/// How many replicas the partitions have, the least of them.
fn replicas(topic: &TopicView) -> usize {
    topic.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0)
}

/// Start and end of every partition; missing for those whose leader does not answer.
async fn ends(cluster: &Cluster, topic: &TopicView) -> Vec<(Option<Offset>, Option<Offset>)> {
    let consumer = Consumer::new(cluster.clone(), ConsumerOptions::default());
    let led: Vec<i32> = topic
        .partitions
        .iter()
        .filter(|partition| partition.leader.is_some())
        .map(|partition| partition.index)
        .collect();
    let mut found = Vec::new();
    for position in [Position::Start, Position::End] {
        match consumer.offsets(&topic.name, &led, position).await {
            Ok(offsets) => found.push(offsets),
            Err(error) => eprintln!("cannot get offsets of {}: {error}", topic.name),
        }
    }
    let at = |place: usize, index: i32| {
        found.get(place).and_then(|offsets| offsets.get(&index)).copied()
    };
    topic
        .partitions
        .iter()
        .map(|partition| (at(0, partition.index), at(1, partition.index)))
        .collect()
}

async fn describe(admin: &Admin, args: &DescribeArgs, output: Output) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    for name in &args.names {
        let topic = admin.describe_topic(name).await?;
        let ends = ends(admin.cluster(), &topic).await;
        let mut configs = admin.describe_configs(&Resource::Topic(name.clone())).await?;
        configs.retain(|config| args.all || config.source == ConfigSource::Topic);
        match output {
            Output::Json => shown.push(describe_json(&topic, &ends, &configs)),
            Output::Table => describe_table(&topic, &ends, &configs, args.all)?,
        }
    }
    if output == Output::Json {
        print_json(&Value::Array(shown))?;
    }
    Ok(())
}

type Ends = [(Option<Offset>, Option<Offset>)];

fn describe_json(topic: &TopicView, ends: &Ends, configs: &[ConfigEntry]) -> Value {
    let partitions = topic.partitions.iter().zip(ends).map(|(partition, (start, end))| {
        json!({
            "partition": partition.index,
            "leader": partition.leader,
            "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas,
            "isr": partition.isr,
            "offline": partition.offline,
            "start": start.map(Offset::get),
            "end": end.map(Offset::get),
            "error": partition.error.as_ref().map(ToString::to_string),
        })
    });
    let settings = configs.iter().map(|config| {
        json!({
            "name": config.name,
            "value": config.value,
            "source": config.source.name(),
            "documentation": config.documentation,
        })
    });
    json!({
        "name": &*topic.name,
        "id": topic.id.to_string(),
        "internal": topic.internal,
        "partitions": partitions.collect::<Vec<_>>(),
        "configs": settings.collect::<Vec<_>>(),
    })
}

fn describe_table(
    topic: &TopicView,
    ends: &Ends,
    configs: &[ConfigEntry],
    all: bool,
) -> anyhow::Result<()> {
    use std::io::Write as _;
    let list =
        |brokers: &[i32]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let number =
        |offset: &Option<Offset>| offset.map_or_else(|| "?".to_owned(), |at| at.to_string());
    let mut partitions =
        Table::new(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "START", "END"]);
    for (partition, (start, end)) in topic.partitions.iter().zip(ends) {
        partitions.row(vec![
            partition.index.to_string(),
            partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            partition.leader_epoch.to_string(),
            list(&partition.replicas),
            list(&partition.isr),
            number(start),
            number(end),
        ]);
    }
    let mut out = stdout();
    writeln!(out, "topic {}  id {}", topic.name, topic.id)?;
    writeln!(out)?;
    out.write_all(partitions.render().as_bytes())?;
    if !configs.is_empty() {
        let head: &[&str] =
            if all { &["SETTING", "VALUE", "FROM", "MEANING"] } else { &["SETTING", "VALUE"] };
        let mut table = Table::new(head);
        for config in configs {
            let value = config.value.clone().unwrap_or_else(|| "(hidden)".to_owned());
            let mut cells = vec![config.name.clone(), value];
            if all {
                cells.push(config.source.name().to_owned());
                cells.push(config.documentation.clone().unwrap_or_default());
            }
            table.row(cells);
        }
        writeln!(out)?;
        out.write_all(table.render().as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

async fn alter(admin: &Admin, args: &AlterArgs, output: Output) -> anyhow::Result<()> {
    let set = args.configs.iter().cloned().map(|(name, value)| ConfigChange::Set(name, value));
    let changes: Vec<_> = set.chain(args.reset.iter().cloned().map(ConfigChange::Reset)).collect();
    if !changes.is_empty() {
        admin.alter_configs(&Resource::Topic(args.name.clone()), &changes).await?;
    }
    if let Some(count) = args.partitions {
        admin.grow_topic(&args.name, count).await?;
    }
    match output {
        Output::Json => print_json(&json!({ "name": args.name, "altered": true }))?,
        Output::Table => print_line(&format!("altered topic {}", args.name))?,
    }
    Ok(())
}

async fn delete(admin: &Admin, args: &DeleteArgs, output: Output) -> anyhow::Result<()> {
    for name in &args.names {
        admin.delete_topic(name).await?;
        if output == Output::Table {
            print_line(&format!("deleted topic {name}"))?;
        }
    }
    if output == Output::Json {
        let rows = args.names.iter().map(|name| json!({ "name": name, "deleted": true }));
        print_json(&rows.collect())?;
    }
    Ok(())
}
