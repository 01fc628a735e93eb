//! One page per run or comparison, complete in itself: no script, no network, drawings inline. `[P]`

pub mod svg;

use crate::compare::Comparison;
use crate::compare::side::{Curve, Side, curve};
use crate::number::float;
use crate::options::Mode;
use crate::recorder::{Interval, Series};
use crate::result::{RunFile, ms};
use crate::run::Outcome;
use svg::{Axis, Chart, Line};

/// Light or dark, as the reader's screen is.
const STYLE: &str = ":root{color-scheme:light dark;--ground:#fff;--text:#222;--rule:#ddd;--code:#f6f6f6;\
--void:#fdd}@media(prefers-color-scheme:dark){:root{--ground:#16181c;--text:#e6e6e6;--rule:#3a3d42;--code:#22252a;\
--void:#5a1a1a}}body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;\
background:var(--ground);color:var(--text)}h1{font-size:1.5em}table{border-collapse:collapse;margin:1em 0;\
display:block;overflow-x:auto}td,th{padding:.2em .8em;border-bottom:1px solid var(--rule);text-align:right;\
white-space:nowrap}td:first-child,th:first-child{text-align:left}.void{background:var(--void);border:2px solid #c00;\
padding:.5em 1em;font-weight:bold}pre{white-space:pre-wrap;background:var(--code);padding:.5em}\
svg{width:100%;height:auto;margin:1em 0}";

/// Which bytes of an interval are meant.
type BytesOf = fn(&Interval) -> u64;

/// The page of a run.
pub fn of_run(run: &RunFile, outcome: &Outcome) -> String {
    let mut body = String::new();
    for reason in &run.void {
        add!(body, "<p class=\"void\">VOID: {}</p>\n", escaped(reason));
    }
    let curves: Vec<Line> = Series::ALL
        .into_iter()
        .filter_map(|series| {
            Some(percentile_line(series.name(), &curve(&outcome.samples(series)?)))
        })
        .collect();
    body.push_str(&percentile_chart(&run.title, curves));
    let over_time = |series: Series| {
        [("p50", 0.5), ("p99", 0.99), ("max", 1.0)].map(|(name, quantile)| Line {
            name: format!("{} {name}", series.name()),
            points: points(outcome, |interval| {
                Some(ms(interval.series.get(&series)?.value_at_quantile(quantile)))
            }),
        })
    };
    let shown = [Series::Response, Series::EndToEnd, Series::Service];
    let shown = shown.into_iter().filter(|series| run.latency.contains_key(series)).take(2);
    body.push_str(&chart(
        &format!("Latency over time: {}", run.title),
        ("s since the start of the warm-up", Axis::Linear),
        ("latency", Axis::Latency),
        shown.flat_map(over_time).collect(),
    ));
    let rates: [(&str, BytesOf); 2] = [
        ("acknowledged", |interval: &Interval| interval.counts.acked_bytes),
        ("read", |interval: &Interval| interval.counts.received_bytes),
    ];
    // What comes after the end is no whole second.
    let end = run.options.warmup_s + run.options.duration_s;
    let is_whole = |interval: &Interval| run.options.mode == Mode::Consume || interval.index < end;
    let lines = rates.map(|(name, of)| Line {
        name: name.to_owned(),
        points: points(outcome, |interval| {
            let rate = is_whole(interval).then(|| float(of(interval)) / 1e6);
            rate.filter(|rate| *rate > 0.0)
        }),
    });
    body.push_str(&chart(
        &format!("Throughput: {}", run.title),
        ("s since the start of the warm-up", Axis::Linear),
        ("MB/s", Axis::Linear),
        lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
    ));
    body.push_str(&html_of_markdown(&crate::files::summary::markdown(run)));
    page(&run.options.name, &body)
}

/// The page of a comparison: all sides in one drawing per series.
pub fn of_comparison(comparison: &Comparison, sides: &[Side]) -> String {
    let mut body = html_of_markdown(&comparison.verdict_lines());
    for series in Series::ALL {
        let mut lines = Vec::new();
        for side in sides {
            // The runs of a side in one colour: how far they lie apart is to be seen, not which is which.
            let curves = side.runs.iter().filter_map(|run| run.curves.get(&series));
            lines.extend(curves.map(|curve| percentile_line(&side.name, curve)));
        }
        if !lines.is_empty() {
            let title = format!("{}, {}", series.name(), comparison.title);
            body.push_str(&percentile_chart(&title, lines));
        }
    }
    body.push_str(&html_of_markdown(&comparison.markdown()));
    page(&comparison.sides.join(" and "), &body)
}

/// The page of a search: load against latency.
pub fn of_search(title: &str, points: &[(f64, [Option<f64>; 3])], markdown: &str) -> String {
    let line = |(place, name): (usize, &str)| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .filter_map(|(rate, at)| Some((*rate, at.get(place).copied().flatten()?)))
            .collect(),
    };
    let lines = ["p50", "p99", "p99.9"].into_iter().enumerate().map(line).collect();
    let axes = (("records/s asked for", Axis::Linear), ("latency", Axis::Latency));
    let mut body = chart(&format!("Latency against load: {title}"), axes.0, axes.1, lines);
    body.push_str(&html_of_markdown(markdown));
    page("search", &body)
}

fn points(outcome: &Outcome, of: impl Fn(&Interval) -> Option<f64>) -> Vec<(f64, f64)> {
    let point = |interval: &Interval| Some((float(interval.index.into()), of(interval)?));
    outcome.intervals.iter().filter_map(point).collect()
}

/// x = 1/(1-p): each step of the axis is another nine.
fn percentile_line(name: &str, curve: &Curve) -> Line {
    let point =
        |(quantile, ns): &(f64, f64)| (*quantile < 1.0).then(|| (1.0 / (1.0 - quantile), ns / 1e6));
    Line { name: name.to_owned(), points: curve.iter().filter_map(point).collect() }
}

fn percentile_chart(title: &str, lines: Vec<Line>) -> String {
    let title = format!("Percentiles: {title}");
    chart(&title, ("percentile", Axis::Percentile), ("latency", Axis::Latency), lines)
}

fn chart(title: &str, x: (&str, Axis), y: (&str, Axis), lines: Vec<Line>) -> String {
    Chart { title: title.to_owned(), x, y, lines }.svg()
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>levada bench: {0}</title>\
         <style>{STYLE}:root{{{1}}}@media(prefers-color-scheme:dark){{:root{{{2}}}}}</style></head><body>\n\
         <h1>{0}</h1>\n{body}</body></html>\n",
        escaped(title),
        line_colours(&svg::COLOURS),
        line_colours(&svg::COLOURS_ON_DARK)
    )
}

/// As the drawings ask for them.
fn line_colours(colours: &[&str]) -> String {
    let mut css = String::new();
    for (place, colour) in colours.iter().enumerate() {
        add!(css, "--line-{place}:{colour};");
    }
    css
}

/// The few things that our own Markdown has: tables, headings, bold, lists, code.
fn html_of_markdown(markdown: &str) -> String {
    let mut html = String::new();
    let mut in_table = false;
    for line in markdown.lines() {
        let cells = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        if in_table && cells.is_none() {
            html.push_str("</table>\n");
            in_table = false;
        }
        match cells {
            Some(cells) if cells.starts_with("---") => {}
            Some(cells) => {
                let tag = if in_table { "td" } else { "th" };
                html.push_str(if in_table { "<tr>" } else { "<table><tr>" });
                in_table = true;
                for cell in cells.split('|') {
                    add!(html, "<{tag}>{}</{tag}>", escaped(cell.trim()));
                }
                html.push_str("</tr>\n");
            }
            None => match line {
                "" => {}
                _ if line.starts_with("# ") => {}
                _ if line.starts_with("* ") => {
                    add!(
                        html,
                        "<ul><li>{}</li></ul>\n",
                        bold(&escaped(line.trim_start_matches("* ")))
                    );
                }
                _ if line.starts_with("    ") => {
                    add!(html, "<pre>{}</pre>\n", escaped(line.trim()));
                }
                _ => add!(html, "<p>{}</p>\n", bold(&escaped(line))),
            },
        }
    }
    if in_table {
        html.push_str("</table>\n");
    }
    html
}

fn bold(text: &str) -> String {
    let mut html = String::new();
    for (part, place) in text.split("**").zip(0_u32..) {
        if place % 2 == 1 {
            add!(html, "<b>{part}</b>");
        } else {
            html.push_str(part);
        }
    }
    html
}

/// Text that is no markup.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::tests::{outcome, run_file};

    #[test]
    fn a_page_is_complete_in_itself_and_says_when_it_is_void() {
        let mut run = run_file(1.0);
        run.void.push("<b>records</b> failed".to_owned());
        let page = of_run(&run, &outcome(1.0));
        assert!(page.contains("VOID: &lt;b&gt;records"), "markup is shown, not obeyed");
        assert!(!page.contains("http://") || page.contains("www.w3.org"));
        assert!(!page.contains("<script") && !page.contains("https://"));
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(
            page.contains("durability") && page.contains("linger 5 ms") && page.contains("99.9")
        );
        let titles: Vec<&str> =
            page.split("<svg").skip(1).filter_map(|svg| svg.split("</title>").next()).collect();
        for fact in ["durability the broker", "linger 5 ms", "batch 256 KiB"] {
            assert!(titles.iter().all(|title| title.contains(fact)), "{fact}: {titles:?}");
        }
        assert!(page.contains("prefers-color-scheme:dark") && !page.contains("fill=\"#"));
        assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
    }
}
