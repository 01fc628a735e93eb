//! Line charts as SVG text. `[P]`

use super::escaped;
use crate::number::{count, float, three_digits};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
/// Longest title that stands in one line.
const TITLE_CHARS: usize = 150;
/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Evenly, from 0.
    Linear,
    /// By their logarithms.
    Logarithmic,
    /// Logarithms of 1/(1-p), written as percents.
    Percentile,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// For the legend.
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
            Axis::Logarithmic if most <= 0.0 => (1.0, 10.0),
            Axis::Logarithmic => {
                let low = 10_f64.powf(least.log10().floor());
                (low, 10_f64.powf(most.log10().ceil()).max(low * 10.0))
            }
        };
        Self { axis, low, high }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.axis {
            Axis::Linear => (value - self.low) / (self.high - self.low),
            Axis::Logarithmic | Axis::Percentile => {
                (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
            }
        };
        place.clamp(0.0, 1.0)
    }

    /// Values with a grid line, and what stands beside it.
    fn ticks(&self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        if self.axis == Axis::Linear {
            let raw = (self.high - self.low) / 6.0;
            let magnitude = 10_f64.powf(raw.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
            let step = step.into_iter().find(|step| raw <= *step).unwrap_or(raw);
            let mut value = 0.0;
            while value <= self.high {
                ticks.push((value, short(value)));
                value += step;
            }
            return ticks;
        }
        let mut value = self.low;
        while value <= self.high * 1.000_001 {
            let text = match self.axis {
                Axis::Percentile => percent(value),
                Axis::Linear | Axis::Logarithmic => short(value),
            };
            ticks.push((value, text));
            value *= 10.0;
        }
        ticks
    }
}

/// 1, 10, 100 as 0 %, 90 %, 99 %.
fn percent(inverse: f64) -> String {
    let percent = format!("{:.8}", 100.0 - 100.0 / inverse);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e5).contains(&value) {
        return if value >= 1e5 {
            format!("{} k", three_digits(value / 1e3))
        } else {
            format!("{value:e}")
        };
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Chart<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\" role=\"img\">\n<title>{0}</title>\n",
            escaped(&self.title)
        );
        for (line, row) in wrapped(&self.title).iter().zip(0_u32..) {
            let y = 14.0 + 13.0 * f64::from(row);
            add!(svg, "<text x=\"4\" y=\"{y}\" font-size=\"10.5\">{}</text>\n", escaped(line));
        }
        let all = self.lines.iter().flat_map(|line| &line.points);
        if all.clone().next().is_none() {
            add!(svg, "<text x=\"{LEFT}\" y=\"120\">nothing was measured</text></svg>\n");
            return svg;
        }
        let x = Scale::new(self.x.1, all.clone().map(|(x, _)| *x));
        let y = Scale::new(self.y.1, all.map(|(_, y)| *y));
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let at_x = |value: f64| LEFT + x.place(value) * (right - LEFT);
        let at_y = |value: f64| bottom - y.place(value) * (bottom - TOP);
        for (value, text) in x.ticks() {
            let at = at_x(value);
            add!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>\n",
                bottom + 16.0
            );
        }
        for (value, text) in y.ticks() {
            let at = at_y(value);
            add!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let middle = f64::midpoint(LEFT, right);
        add!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            HEIGHT - 8.0,
            escaped(self.x.0)
        );
        add!(svg, "<text x=\"12\" y=\"{}\">{}</text>\n", TOP + 4.0, escaped(self.y.0));
        for (line, place) in self.lines.iter().zip(0_usize..) {
            let colour = COLOURS.get(place % COLOURS.len()).copied().unwrap_or("#000");
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)))
                .collect();
            add!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>\n",
                points.join(" ")
            );
            let row = TOP + 8.0 + 17.0 * float(count(place));
            add!(
                svg,
                "<line x1=\"{0}\" y1=\"{row}\" x2=\"{1}\" y2=\"{row}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <text x=\"{2}\" y=\"{3}\">{4}</text>\n",
                right + 12.0,
                right + 30.0,
                right + 36.0,
                row + 4.0,
                escaped(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
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
            for axis in [Axis::Linear, Axis::Logarithmic, Axis::Percentile] {
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
}
