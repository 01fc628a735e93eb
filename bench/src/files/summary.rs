//! The result for people, in Markdown. `[P]`

use crate::number::{bytes, duration, rate};
use crate::options::Mode;
use crate::recorder::Series;
use crate::result::{QUANTILES, RunFile};

/// A page.
pub fn markdown(run: &RunFile) -> String {
    let mut text = format!("# {}\n\n{}\n\n", run.options.name, run.title);
    for reason in &run.void {
        add!(text, "**VOID: {reason}.**\n\n");
    }
    let totals = &run.totals;
    text += "| | records/s | MB/s |\n|---|---:|---:|\n";
    if run.options.mode != Mode::Consume {
        add!(
            text,
            "| acknowledged | {} | {:.1} |\n",
            rate(totals.acked_per_s),
            totals.acked_mb_per_s
        );
    }
    if totals.counts.received > 0 && run.options.mode != Mode::Produce {
        add!(
            text,
            "| read | {} | {:.1} |\n",
            rate(totals.received_per_s),
            totals.received_mb_per_s
        );
    }
    add!(text, "\nover {:.1} s", totals.seconds);
    if totals.records_per_batch > 0.0 {
        add!(text, ", {:.1} records to a batch", totals.records_per_batch);
    }
    text += "\n\n";
    text += &latency(run);
    if let Some(limits) = &run.limits {
        let (disk, doing) = match run.options.mode {
            Mode::Consume => (limits.disk_read_mb_per_s, "read"),
            Mode::Produce | Mode::EndToEnd => (limits.disk_write_mb_per_s, "written"),
        };
        add!(
            text,
            "Bare disk {disk:.0} MB/s {doing}, bare loopback {:.0} MB/s, {:.0} % apart before and after: {:.0} % of the lower.\n\n",
            limits.loopback_mb_per_s,
            limits.drift * 100.0,
            limits.throughput * 100.0
        );
        let shown = |ns: Option<u64>| ns.map_or_else(|| "too few".to_owned(), duration);
        let [p50, p99, p999] = limits.sync_ns.map(shown);
        add!(
            text,
            "Bare write and fdatasync of {}: p50 {p50}, p99 {p99}, p99.9 {p999}",
            bytes(limits.sync_bytes)
        );
        let ratios: Vec<String> = ["p50", "p99", "p99.9"]
            .into_iter()
            .zip(limits.latency)
            .filter_map(|(name, ratio)| Some(format!("{name} {:.2}×", ratio?)))
            .collect();
        if ratios.is_empty() {
            text.push_str(".\n\n");
        } else {
            add!(text, "; the run is at {}.\n\n", ratios.join(", "));
        }
    }
    if run.limits.is_some_and(|limits| !limits.valid) {
        text.push_str("**The bare machine was not steady: the ratios are void.**\n\n");
    }
    if let Some(broker) = &run.broker {
        add!(
            text,
            "Broker: {:.2} CPU s, {:.2} per million records, {:.2} per GB; peak memory {}.\n\n",
            broker.cpu_s,
            broker.cpu_s_per_million_records,
            broker.cpu_s_per_gb,
            bytes(broker.memory_bytes_peak)
        );
    }
    let generator = &run.generator;
    add!(
        text,
        "Generator: {:.2} CPU s, busiest thread {:.0} %, own lag p99 {}, measuring {:.0} ns a record.\n\n",
        generator.cost.cpu_s,
        generator.busiest_worker * 100.0,
        duration(generator.own_lag_p99_ns),
        generator.overhead_ns
    );
    match &run.findings {
        Some(findings) if findings.is_clean() => {
            add!(
                text,
                "Checked {} records: none lost, doubled or out of order.\n\n",
                findings.received
            );
        }
        Some(findings) => add!(text, "Checked {} records: {findings}.\n\n", findings.received),
        None => text += "The records were not read back.\n\n",
    }
    for note in &run.notes {
        add!(text, "* {note}\n");
    }
    let e = &run.environment;
    add!(
        text,
        "\n{} × {}, {} memory, Linux {}, {} on {} at {}, governor {}, levada {}\n\n    {}\n",
        e.cpus,
        e.cpu,
        bytes(e.memory_bytes),
        e.kernel,
        e.filesystem,
        e.device,
        e.directory,
        if e.governor.is_empty() { "unknown" } else { &e.governor },
        e.version,
        e.command_line.join(" ")
    );
    text
}

fn latency(run: &RunFile) -> String {
    let told: Vec<_> =
        Series::ALL.into_iter().filter_map(|s| Some((s, run.latency.get(&s)?))).collect();
    if told.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = QUANTILES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| told.iter().any(|(_, series)| series.at.contains_key(*name)))
        .collect();
    let mut text = format!(
        "| | {} | max | samples |\n|---|{}---:|---:|\n",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for (series, percentiles) in told {
        let at =
            |name: &&str| percentiles.at.get(*name).map_or_else(String::new, |ns| duration(*ns));
        let cells: Vec<String> = names.iter().map(at).collect();
        add!(
            text,
            "| {} | {} | {} | {} |\n",
            series.name(),
            cells.join(" | "),
            duration(percentiles.max_ns),
            percentiles.samples
        );
    }
    text.push('\n');
    text
}
