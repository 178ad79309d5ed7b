//! Charts as SVG: lines over an axis, and bars side by side. Nothing in them moves, and they need no font of their own.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Around the plot: left, right, top, bottom.
const MARGIN: [f64; 4] = [70.0, 190.0, 44.0, 54.0];
/// That those tell apart who do not see red and green as two colours (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// An axis and what it is of.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) scale: Scale,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether each point is marked: of a few measurements, not of a distribution.
    pub(crate) has_marks: bool,
}

/// An axis with its ends, and how long it is.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
    length: f64,
}

impl Ruler {
    /// Around all values. A linear one begins at zero.
    fn around(scale: Scale, values: impl Iterator<Item = f64>, length: f64) -> Self {
        let shown = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (mut low, mut high) = shown.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => (low, high) = (low.min(0.0), if high > low { high } else { low + 1.0 }),
            Scale::Log if high <= low => (low, high) = (low / 2.0, high * 2.0),
            Scale::Log => {}
        }
        Self {
            scale,
            low,
            high,
            length,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        part * self.length
    }

    /// Values that are marked on it.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step((self.high - self.low) / 6.0);
                let first = (self.low / step).ceil() as i64;
                let ticks = (first..).map(|n| n as f64 * step);
                ticks.take_while(|tick| *tick <= self.high * 1.000_001).collect()
            }
            Scale::Log => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = if decades < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
                all.filter(|tick| (self.low * 0.999_999..=self.high * 1.000_001).contains(tick))
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 of a power of ten, at least this.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// Lines over two axes; a legend at the right.
pub(crate) fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let [left, right, top, bottom] = MARGIN;
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let across = Ruler::around(x.scale, points().map(|(x, _)| *x), WIDTH - left - right);
    let up = Ruler::around(y.scale, points().map(|(_, y)| *y), HEIGHT - top - bottom);
    let mut svg = begin(title, WIDTH, HEIGHT);
    scale_up(&mut svg, &up, y.title);
    for tick in across.ticks() {
        let x = left + across.at(tick);
        rule(&mut svg, [x, top, x, HEIGHT - bottom]);
        text(&mut svg, [x, HEIGHT - bottom + 16.0], "middle", &number(tick));
    }
    text(
        &mut svg,
        [left + across.length / 2.0, HEIGHT - 12.0],
        "middle",
        x.title,
    );
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let shown: Vec<_> = line
            .points
            .iter()
            .map(|(x, y)| (left + across.at(*x), HEIGHT - bottom - up.at(*y)))
            .collect();
        let path: Vec<_> = shown.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(
            &mut svg,
            &format!(
                r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
                path.join(" ")
            ),
        );
        if line.has_marks {
            for (x, y) in shown {
                put(
                    &mut svg,
                    &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#),
                );
            }
        }
        legend(&mut svg, n, colour, &line.label);
    }
    svg + "</svg>\n"
}

/// Groups of bars over a logarithmic axis: each group has one of each label.
pub(crate) fn bars(title: &str, y: &'static str, labels: &[&str], groups: &[(String, Vec<f64>)]) -> String {
    let [left, right, top, bottom] = MARGIN;
    // A bar begins at 1, or it would have no length.
    let values = groups
        .iter()
        .flat_map(|(_, values)| values.iter().copied())
        .chain([1.0]);
    let up = Ruler::around(Scale::Log, values, HEIGHT - top - bottom);
    let mut svg = begin(title, WIDTH, HEIGHT);
    scale_up(&mut svg, &up, y);
    let group = (WIDTH - left - right) / groups.len().max(1) as f64;
    let bar = group * 0.8 / labels.len().max(1) as f64;
    for (g, (name, values)) in groups.iter().enumerate() {
        let begin = left + group * (g as f64 + 0.1);
        for (n, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let (x, height) = (begin + bar * n as f64, up.at(*value).max(1.0));
            let (y, colour) = (HEIGHT - bottom - height, COLOURS[n % COLOURS.len()]);
            put(
                &mut svg,
                &format!(
                    r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" fill="{colour}"/>"#,
                    bar * 0.92
                ),
            );
            text(&mut svg, [x + bar / 2.0, y - 3.0], "middle", &number(*value));
        }
        let middle = left + group * (g as f64 + 0.5);
        text(&mut svg, [middle, HEIGHT - bottom + 16.0], "middle", name);
    }
    for (n, label) in labels.iter().enumerate() {
        legend(&mut svg, n, COLOURS[n % COLOURS.len()], label);
    }
    svg + "</svg>\n"
}

/// The beginning of any picture.
pub(crate) fn begin(title: &str, width: f64, height: f64) -> String {
    let mut svg = String::new();
    put(
        &mut svg,
        &format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"#
        ),
    );
    put(
        &mut svg,
        &format!(r#"<rect width="{width}" height="{height}" fill="white"/>"#),
    );
    put(
        &mut svg,
        &format!(
            r#"<text x="{}" y="24" text-anchor="middle" font-size="15">{}</text>"#,
            width / 2.0,
            escape(title)
        ),
    );
    svg
}

/// The left axis.
fn scale_up(svg: &mut String, up: &Ruler, title: &str) {
    let [left, right, top, bottom] = MARGIN;
    for tick in up.ticks() {
        let y = HEIGHT - bottom - up.at(tick);
        rule(svg, [left, y, WIDTH - right, y]);
        text(svg, [left - 8.0, y + 4.0], "end", &number(tick));
    }
    let middle = top + up.length / 2.0;
    put(
        svg,
        &format!(
            r#"<text x="16" y="{middle:.1}" text-anchor="middle" transform="rotate(-90 16 {middle:.1})">{}</text>"#,
            escape(title)
        ),
    );
}

fn rule(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    put(
        svg,
        &format!(r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#dddddd"/>"##),
    );
}

fn legend(svg: &mut String, n: usize, colour: &str, label: &str) {
    let (x, y) = (WIDTH - MARGIN[1] + 14.0, MARGIN[2] + 18.0 * n as f64);
    put(
        svg,
        &format!(r#"<rect x="{x:.1}" y="{y:.1}" width="14" height="10" fill="{colour}"/>"#),
    );
    text(svg, [x + 20.0, y + 9.0], "start", label);
}

fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, words: &str) {
    put(
        svg,
        &format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(words)
        ),
    );
}

/// A line of the picture.
pub(crate) fn put(svg: &mut String, element: &str) {
    // Writing into a String does not fail.
    let _ = writeln!(svg, "{element}");
}

/// Text in an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// As short as it can be.
fn number(value: f64) -> String {
    match value.abs() {
        10_000.0.. => format!("{:.0}k", value / 1000.0),
        10.0.. => format!("{value:.0}"),
        1.0.. => trimmed(&format!("{value:.1}")),
        _ => trimmed(&format!("{value:.3}")),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether every element that begins ends, in order, and every attribute is quoted.
    pub(crate) fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((before, after)) = rest.split_once('<') {
            let Some((tag, behind)) = after.split_once('>') else {
                return false;
            };
            let is_text_good =
                !before.contains('>') && before.split('&').skip(1).all(|word| word.contains(';'));
            if !is_text_good || tag.matches('"').count() % 2 == 1 {
                return false;
            }
            rest = behind;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap_or_default());
            }
        }
        open.is_empty() && rest.trim().is_empty() && svg.starts_with("<svg ")
    }

    fn axis(scale: Scale) -> Axis {
        Axis {
            title: "a & b",
            scale,
        }
    }

    fn line(points: &[(f64, f64)]) -> Line {
        Line {
            label: "<floor>".to_owned(),
            points: points.to_vec(),
            has_marks: true,
        }
    }

    #[test]
    fn charts_are_well_formed_whatever_is_in_them() {
        let some = [line(&[(1.0, 0.5), (8.0, 900.0)])];
        let empty = [line(&[])];
        let zero = [line(&[(0.0, 0.0)])];
        for scale in [Scale::Linear, Scale::Log] {
            for content in [&some, &empty, &zero] {
                let svg = lines("\"who\" > whom", &axis(scale), &axis(scale), content);
                assert!(is_well_formed(&svg), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
        let groups = [
            ("daemon".to_owned(), vec![60.0, 0.0]),
            ("a<b".to_owned(), Vec::new()),
        ];
        assert!(is_well_formed(&bars(
            "calls",
            "n",
            &["attach", "detach"],
            &groups
        )));
        assert!(!is_well_formed("<svg a=\"1\"><g></svg>"));
    }

    #[test]
    fn a_value_is_where_its_axis_says() {
        let linear = Ruler::around(Scale::Linear, [50.0, 100.0].into_iter(), 200.0);
        assert_eq!((linear.at(0.0), linear.at(50.0)), (0.0, 100.0));
        assert_eq!(linear.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let log = Ruler::around(Scale::Log, [1.0, 100.0].into_iter(), 200.0);
        assert!((log.at(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(log.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.25, 1.0, 1.5, 20.0, 35_000.0].map(number);
        assert_eq!(all, ["0.25", "1", "1.5", "20", "35k"]);
    }
}
