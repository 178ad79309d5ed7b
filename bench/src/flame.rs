//! Flame graphs as SVG: stacks from the bottom, as wide as they are heavy. Drawn here because the usual crate for it, inferno,
//! has a licence (CDDL-1.0) that is not among the allowed ones.

use crate::plot::{begin, escape, put};
use std::collections::BTreeMap;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
/// Above and below the flames.
const MARGIN: [f64; 2] = [40.0, 14.0];
/// What is narrower is not drawn.
const NARROWEST: f64 = 2.0;
/// Of a letter, about.
const LETTER: f64 = 6.6;
/// What marks a function of the kernel.
pub(crate) const KERNEL: &str = "_[k]";

/// Stacks and their weights: functions from the outermost on, joined by `;`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Folded(pub(crate) BTreeMap<String, u64>);

impl Folded {
    pub(crate) fn add(&mut self, functions: impl Iterator<Item = String>, weight: u64) {
        let stack: Vec<String> = functions.map(|name| name.replace(';', ":")).collect();
        *self.0.entry(stack.join(";")).or_default() += weight;
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A function in its place.
#[derive(Debug, Default)]
struct Frame {
    weight: u64,
    above: BTreeMap<String, Frame>,
}

impl Frame {
    fn depth(&self) -> usize {
        1 + self.above.values().map(Self::depth).max().unwrap_or_default()
    }
}

/// `unit` says what weights are.
pub(crate) fn draw(title: &str, unit: &str, folded: &Folded) -> String {
    let mut root = Frame {
        weight: folded.total(),
        ..Frame::default()
    };
    for (stack, weight) in &folded.0 {
        let mut frame = &mut root;
        for name in stack.split(';') {
            frame = frame.above.entry(name.to_owned()).or_default();
            frame.weight += weight;
        }
    }
    let height = MARGIN[0] + MARGIN[1] + ROW * root.depth() as f64;
    let mut svg = begin(title, WIDTH, height);
    let scale = WIDTH / root.weight.max(1) as f64;
    rows(
        &mut svg,
        "all",
        &root,
        [0.0, height - MARGIN[1] - ROW],
        scale,
        (root.weight, unit),
    );
    svg + "</svg>\n"
}

fn rows(svg: &mut String, name: &str, frame: &Frame, [x, y]: [f64; 2], scale: f64, of: (u64, &str)) {
    let width = frame.weight as f64 * scale;
    if width < NARROWEST {
        return;
    }
    let (all, unit) = of;
    let share = frame.weight as f64 * 100.0 / all.max(1) as f64;
    let shown = name.trim_end_matches(KERNEL);
    put(
        svg,
        &format!(
            r#"<g><title>{}: {} {unit}, {share:.1} %</title><rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{}"/>"#,
            escape(shown),
            frame.weight,
            (width - 0.4).max(0.2),
            ROW - 1.0,
            colour(name),
        ),
    );
    let letters = (width / LETTER) as usize;
    if letters > 3 {
        put(
            svg,
            &format!(
                r#"<text x="{:.1}" y="{:.1}">{}</text>"#,
                x + 3.0,
                y + 12.5,
                escape(&short(shown, letters))
            ),
        );
    }
    put(svg, "</g>");
    let mut left = x;
    for (name, above) in &frame.above {
        rows(svg, name, above, [left, y - ROW], scale, of);
        left += above.weight as f64 * scale;
    }
}

fn short(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    let begin: String = name.chars().take(letters.saturating_sub(2)).collect();
    begin + ".."
}

/// The kernel's are warm, ours are cold; neighbours differ.
fn colour(name: &str) -> String {
    let sum = name
        .bytes()
        .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let shade = sum % 14;
    let (hue, light) = if name.ends_with(KERNEL) {
        (24 + shade, 66 + shade)
    } else {
        (200 + shade, 70 + shade)
    };
    format!("hsl({hue},75%,{light}%)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::is_well_formed;

    fn folded(stacks: &[(&[&str], u64)]) -> Folded {
        let mut folded = Folded::default();
        for (functions, weight) in stacks {
            folded.add(functions.iter().map(|name| (*name).to_owned()), *weight);
        }
        folded
    }

    #[test]
    fn equal_stacks_are_one() {
        let folded = folded(&[(&["main", "a;b"], 2), (&["main", "a:b"], 3)]);
        assert_eq!(folded.0, BTreeMap::from([("main;a:b".to_owned(), 5)]));
        assert_eq!(folded.total(), 5);
    }

    #[test]
    fn a_frame_is_as_wide_as_it_is_heavy_and_says_whose_it_is() {
        let folded = folded(&[(&["main", "Vec<T>::push"], 1), (&["main", "rtnl_lock_[k]"], 3)]);
        let svg = draw("attach", "samples", &folded);
        assert!(is_well_formed(&svg), "{svg}");
        assert!(
            svg.contains("<title>rtnl_lock: 3 samples, 75.0 %</title>"),
            "{svg}"
        );
        assert!(
            svg.contains("<title>Vec&lt;T&gt;::push: 1 samples, 25.0 %</title>"),
            "{svg}"
        );
        assert!(svg.contains(r#"width="899.6""#), "{svg}");
        assert!(is_well_formed(&draw("nothing", "samples", &Folded::default())));
    }

    #[test]
    fn a_name_that_is_too_long_says_so() {
        assert_eq!(short("synchronize_net", 8), "synchr..");
        assert_eq!(short("wire", 8), "wire");
    }
}
