//! `levada bench search`: the highest rate that holds an objective.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use levada_bench::options::{Mode, Options};
use levada_bench::result::{headline, ms};
use levada_bench::run::Interrupt;
use levada_bench::schedule::Rate;
use levada_bench::search::{Objective, Search};
use levada_bench::title::title;
use levada_bench::{files, number, report};
use serde_json::json;

use super::run::{LoadArgs, PlaceArgs, one};
use crate::args::{ConnectArgs, Output};
use crate::output::{print_json, print_line};

/// Options of `levada bench search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// What must hold: 'p99<10ms', 'end-to-end.p99.9<1s'
    #[arg(long, value_name = "OBJECTIVE", value_parser = Objective::parse)]
    objective: Objective,
    /// The first rate that is tried
    #[arg(long, value_name = "RECORDS/S", default_value_t = 1000)]
    from: u32,
    /// The highest rate that is tried
    #[arg(long, value_name = "RECORDS/S", default_value_t = 2_000_000)]
    most: u32,
    /// How near the answer must be, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    precision: u8,
}

/// Searches, writes the curve, prints; exit code 1 when no rate holds.
pub(crate) fn run(
    args: &SearchArgs,
    connect: &ConnectArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<ExitCode> {
    let options = args.load.options()?;
    if options.rate != Rate::Maximum {
        bail!("--rate: the rate is what is searched for; say where to begin with --from");
    }
    if options.mode == Mode::Consume {
        bail!("--mode consume: consumers alone have no rate to search for");
    }
    if args.from == 0 || args.most < args.from {
        bail!("--from and --most: from 1 up, and in that order");
    }
    let directory = args.place.directory("search");
    let live = args.place.live();
    let precision = f64::from(args.precision) / 100.0;
    let mut search = Search::new(args.from.into(), args.most.into(), precision);
    let mut points = Vec::new();
    while let Some(rate) = search.next_rate() {
        let options = Options { rate: Rate::Fixed(rate), ..options.clone() };
        let place = directory.join(format!("{rate:010.0}"));
        let file = one(&options, &args.place, connect, &place, &live, interrupt)?;
        if interrupt.is_asked() {
            break;
        }
        let held = args.objective.is_held(&file);
        search.on_tried(rate, held);
        let at = headline(&file).map(|(_, percentiles)| percentiles);
        let at = ["p50", "p99", "p99.9"].map(|name| Some(ms(*at?.at.get(name)?)));
        live.say(&format!(
            "{}: {}{}",
            options.rate,
            if held { "holds" } else { "does not hold" },
            file.void.first().map(|reason| format!(" ({reason})")).unwrap_or_default()
        ));
        points.push((rate, at, held));
    }
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    let best = search.best();
    let interrupted = interrupt.is_asked();
    let mut markdown = match best {
        Some(best) => format!("{} holds up to {best:.0} records/s\n\n", args.objective.text),
        None => format!("{} holds at no rate that was tried\n\n", args.objective.text),
    };
    if interrupted {
        markdown.push_str("**Interrupted: higher rates may hold.**\n\n");
    }
    markdown.push_str("| records/s | p50 ms | p99 ms | p99.9 ms | |\n|---:|---:|---:|---:|---|\n");
    for (rate, at, held) in &points {
        let shown = at.map(|at| at.map_or_else(|| "-".to_owned(), number::three_digits));
        let held = if *held { "holds" } else { "" };
        markdown.push_str(
            &["| ", &format!("{rate:.0}"), " | ", &shown.join(" | "), " | ", held, " |\n"].concat(),
        );
    }
    let curve: Vec<_> = points.iter().map(|(rate, at, _)| (*rate, *at)).collect();
    let page = report::of_search(&title(&options), &curve, &markdown);
    let result = json!({
        "schema": 1,
        "objective": args.objective.text,
        "best_records_per_s": best,
        "interrupted": interrupted,
        "points": points.iter().map(|(rate, at, held)| json!({
            "records_per_s": rate, "p50_ms": at[0], "p99_ms": at[1], "p99_9_ms": at[2], "held": held,
        })).collect::<Vec<_>>(),
    });
    std::fs::create_dir_all(&directory)?;
    files::put(&directory, "search.json", serde_json::to_string_pretty(&result)?.as_bytes())?;
    files::put(&directory, "report.html", page.as_bytes())?;
    match connect.output {
        Output::Json => print_json(&result)?,
        Output::Table => {
            print_line(&markdown)?;
            print_line(&format!("results in {}", directory.display()))?;
        }
    }
    Ok(if best.is_some() && !interrupted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
