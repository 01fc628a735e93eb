//! Line charts as SVG text, readable on light and on dark ground: what is not a line has the colour of the text
//! around it, and lines take the page's `--line-N` where it has them. `[P]`

use super::escaped;
use crate::number::three_digits;

const WIDTH: f64 = 960.0;
const PLOT_HEIGHT: f64 = 330.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 180.0;
const BOTTOM: f64 = 45.0;
/// Height of a line of the title.
const TITLE_LINE: f64 = 16.0;
/// Room for a title's characters in the drawing's width.
const TITLE_CHARS: usize = 140;
/// Room for a name in the legend.
const NAME_CHARS: usize = 20;
/// Told apart by people who see colours differently, too (Okabe and Ito).
pub(super) const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08000", "#56b4e9", "#000000"];
/// The same on dark ground.
pub(super) const COLOURS_ON_DARK: [&str; 7] =
    ["#5ab4f0", "#ff8c42", "#2fc48d", "#eaa0cc", "#f0c040", "#a9b4ff", "#f0f0f0"];

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Evenly, from 0.
    Linear,
    /// Times in ms, by their logarithms.
    Latency,
    /// Logarithms of 1/(1-p), written as percents.
    Percentile,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// For the legend: lines of one name share a colour, and a row there.
    pub name: String,
    /// By rising x.
    pub points: Vec<(f64, f64)>,
}

/// A drawing.
#[derive(Debug)]
pub struct Chart<'a> {
    /// Over it.
    pub title: String,
    /// What x is, and how it lies.
    pub x: (&'a str, Axis),
    /// What y is, and how it lies.
    pub y: (&'a str, Axis),
    /// The lines.
    pub lines: Vec<Line>,
}

/// One axis with its values.
struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
}

impl Scale {
    fn new(axis: Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(f64::MIN, f64::max);
        let least = values.filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
        let (low, high) = match axis {
            Axis::Linear => (0.0, most.max(1e-9) * 1.05),
            Axis::Percentile => (1.0, most.max(10.0)),
            // Nothing above 0: any decade will do.
            Axis::Latency if most <= 0.0 => (1.0, 10.0),
            Axis::Latency => {
                let low = 10_f64.powf(least.log10().floor());
                let low = [5.0, 2.0].map(|step| step * low).into_iter().find(|low| *low <= least);
                let low = low.unwrap_or(10_f64.powf(least.log10().floor()));
                let below = 10_f64.powf(most.log10().floor());
                let high = [1.0, 2.0, 5.0, 10.0].map(|step| step * below);
                let high = high.into_iter().find(|high| most <= *high * 1.000_001);
                (low, high.unwrap_or(most).max(low * 10.0))
            }
        };
        Self { axis, low, high }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.axis {
            Axis::Linear => (value - self.low) / (self.high - self.low),
            Axis::Latency | Axis::Percentile => {
                (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
            }
        };
        place.clamp(0.0, 1.0)
    }

    /// Values with a grid line, and what stands beside it.
    fn ticks(&self) -> Vec<(f64, String)> {
        let steps: &[f64] = match self.axis {
            Axis::Linear => return self.even_ticks(),
            Axis::Percentile => &[1.0],
            Axis::Latency if self.high / self.low > 3e3 => &[1.0],
            Axis::Latency => &[1.0, 2.0, 5.0],
        };
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf((self.low * 1.000_001).log10().floor());
        while decade <= self.high * 1.000_001 {
            for value in steps.iter().map(|step| step * decade) {
                if self.low <= value * 1.000_001 && value <= self.high * 1.000_001 {
                    let text =
                        if self.axis == Axis::Latency { time(value) } else { percent(value) };
                    ticks.push((value, text));
                }
            }
            decade *= 10.0;
        }
        ticks
    }

    fn even_ticks(&self) -> Vec<(f64, String)> {
        let raw = (self.high - self.low) / 6.0;
        let magnitude = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
        let step = step.into_iter().find(|step| raw <= *step).unwrap_or(raw);
        let mut ticks = Vec::new();
        let mut value = 0.0;
        while value <= self.high {
            ticks.push((value, short(value)));
            value += step;
        }
        ticks
    }
}

/// 1, 10, 100 as 0 %, 90 %, 99 %.
fn percent(inverse: f64) -> String {
    let percent = format!("{:.8}", 100.0 - 100.0 / inverse);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

/// Milliseconds in the unit that needs the fewest digits.
fn time(ms: f64) -> String {
    let units = [(1e3, "s"), (1.0, "ms"), (1e-3, "µs")];
    let fits = units.into_iter().find(|(unit, _)| *unit * 0.999_999 <= ms);
    let (unit, name) = fits.unwrap_or((1e-6, "ns"));
    format!("{} {name}", trimmed(ms / unit))
}

fn short(value: f64) -> String {
    if value >= 1e5 { format!("{} k", three_digits(value / 1e3)) } else { trimmed(value) }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Chart<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let title = wrapped(&self.title);
        let top = title.iter().fold(34.0, |top, _| top + TITLE_LINE);
        let (bottom, right) = (top + PLOT_HEIGHT, WIDTH - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {1}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"currentColor\" role=\"img\">\n<title>{0}</title>\n",
            escaped(&self.title),
            bottom + BOTTOM
        );
        let mut y = 0.0;
        for line in &title {
            y += TITLE_LINE;
            add!(svg, "<text x=\"4\" y=\"{y}\">{}</text>\n", escaped(line));
        }
        let all = self.lines.iter().flat_map(|line| &line.points);
        if all.clone().next().is_none() {
            add!(svg, "<text x=\"{LEFT}\" y=\"120\">nothing was measured</text></svg>\n");
            return svg;
        }
        let x = Scale::new(self.x.1, all.clone().map(|(x, _)| *x));
        let y = Scale::new(self.y.1, all.map(|(_, y)| *y));
        let at_x = |value: f64| LEFT + x.place(value) * (right - LEFT);
        let at_y = |value: f64| bottom - y.place(value) * (bottom - top);
        for (value, text) in x.ticks() {
            let at = at_x(value);
            add!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" {GRID}/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>\n",
                bottom + 16.0
            );
        }
        for (value, text) in y.ticks() {
            let at = at_y(value);
            add!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" {GRID}/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let middle = f64::midpoint(LEFT, right);
        add!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            bottom + BOTTOM - 8.0,
            escaped(self.x.0)
        );
        add!(svg, "<text x=\"4\" y=\"{}\">{}</text>\n", top - 12.0, escaped(self.y.0));
        let mut names: Vec<&str> = Vec::new();
        let mut row = top + 8.0;
        for line in &self.lines {
            let known = names.iter().position(|name| *name == line.name);
            let colour = colour(known.unwrap_or(names.len()));
            let point = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", at_x(*x), at_y(*y));
            let points: Vec<String> = line.points.iter().map(point).collect();
            add!(
                svg,
                "<polyline fill=\"none\" style=\"stroke:{colour}\" stroke-width=\"1.8\" points=\"{}\"/>\n",
                points.join(" ")
            );
            if known.is_some() {
                continue;
            }
            names.push(&line.name);
            add!(
                svg,
                "<line x1=\"{0}\" y1=\"{row}\" x2=\"{1}\" y2=\"{row}\" style=\"stroke:{colour}\" \
                 stroke-width=\"3\"/><text x=\"{2}\" y=\"{3}\">{4}</text>\n",
                right + 12.0,
                right + 30.0,
                right + 36.0,
                row + 4.0,
                escaped(&cut(&line.name))
            );
            row += 17.0;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Grid lines, on any ground.
const GRID: &str = "stroke=\"currentColor\" stroke-opacity=\"0.15\"";

/// Of the `place`th name.
fn colour(place: usize) -> String {
    let place = place % COLOURS.len();
    format!("var(--line-{place},{})", COLOURS.get(place).copied().unwrap_or("#000"))
}

/// A name that fits.
fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_CHARS - 1).collect();
    format!("{kept}…")
}

/// The title in lines that fit.
fn wrapped(title: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in title.split(' ') {
        let line = lines.last_mut().expect("it begins with one line");
        if line.chars().count() + word.chars().count() < TITLE_CHARS {
            line.push_str(word);
            line.push(' ');
        } else {
            lines.push(format!("{word} "));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nine_is_a_step_of_the_percentile_axis() {
        let scale = Scale::new(Axis::Percentile, [1.0, 10_000.0].into_iter());
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert!((scale.place(100.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn no_values_and_equal_values_are_drawn_without_a_number_that_is_none() {
        for points in [vec![], vec![(1.0, 5.0)], vec![(1.0, 0.0), (2.0, 0.0)]] {
            for axis in [Axis::Linear, Axis::Latency, Axis::Percentile] {
                let line = Line { name: "<x>".to_owned(), points: points.clone() };
                let chart = Chart {
                    title: "t".to_owned(),
                    x: ("x", axis),
                    y: ("y", axis),
                    lines: vec![line],
                };
                let svg = chart.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.ends_with("</svg>\n"));
            }
        }
    }

    #[test]
    fn times_are_written_with_their_unit_and_the_axis_is_no_longer_than_needed() {
        let scale = Scale::new(Axis::Latency, [0.6, 40.0].into_iter());
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
        let wide = Scale::new(Axis::Latency, [0.000_1, 2_000.0].into_iter());
        let labels: Vec<String> = wide.ticks().into_iter().map(|(_, label)| label).collect();
        let expected = ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"];
        assert_eq!(labels, expected);
    }

    #[test]
    fn lines_of_one_name_share_a_colour_and_a_row_of_the_legend() {
        let line = |name: &str| Line { name: name.to_owned(), points: vec![(1.0, 1.0)] };
        let long = "a name that is too long for the legend";
        let lines = vec![line("a"), line("a"), line(long)];
        let axis = ("", Axis::Linear);
        let svg = Chart { title: String::new(), x: axis, y: axis, lines }.svg();
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches(">a</text>").count(), 1);
        assert!(svg.contains(">a name that is too …</text>") && !svg.contains("--line-2"));
    }
}
