//! Lines over time, drawn as SVG.

use std::fmt::Write as _;

/// One line of a panel.
#[derive(Debug)]
pub(super) struct Line {
    /// What it shows.
    pub(super) name: &'static str,
    /// Its colour.
    pub(super) colour: &'static str,
    /// Moments and values.
    pub(super) points: Vec<(f64, f64)>,
}

/// One panel.
#[derive(Debug)]
pub(super) struct Panel {
    /// Above it.
    pub(super) title: &'static str,
    /// Its lines, which share its scale.
    pub(super) lines: Vec<Line>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 30.0;

/// Panels one below the other, with the same times.
pub(super) fn draw(panels: &[Panel]) -> String {
    let all = || {
        panels
            .iter()
            .flat_map(|panel| &panel.lines)
            .flat_map(|line| &line.points)
    };
    let end = all().map(|(time, _)| *time).fold(1.0, f64::max);
    let height = (HEIGHT + TOP + 20.0) * panels.len() as f64 + 20.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + LEFT + 20.0
    );
    for (n, panel) in panels.iter().enumerate() {
        let top = (HEIGHT + TOP + 20.0) * n as f64 + TOP;
        let values = panel.lines.iter().flat_map(|line| &line.points);
        let most = values.map(|(_, value)| *value).fold(1.0, f64::max) * 1.1;
        let _ = write!(
            text,
            "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>\n",
            top - 10.0,
            panel.title
        );
        for part in 0..=4 {
            let value = most * f64::from(part) / 4.0;
            let y = top + HEIGHT - HEIGHT * f64::from(part) / 4.0;
            let _ = write!(
                text,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/>\n\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value:.0}</text>\n",
                LEFT + WIDTH,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for (m, line) in panel.lines.iter().enumerate() {
            let mut points = String::new();
            for (time, value) in &line.points {
                let (x, y) = (LEFT + WIDTH * time / end, top + HEIGHT - HEIGHT * value / most);
                let _ = write!(points, "{x:.1},{y:.1} ");
            }
            let _ = write!(
                text,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n\
                 <text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>\n",
                points.trim_end(),
                line.colour,
                LEFT + 400.0 + 120.0 * m as f64,
                top - 10.0,
                line.colour,
                line.name
            );
        }
    }
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{}\">seconds: 0 to {end:.0}</text>\n</svg>",
        height - 8.0
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_point_for_each_value_inside_its_panel() {
        let line = Line {
            name: "attach",
            colour: "#1f77b4",
            points: vec![(0.0, 0.0), (50.0, 10.0), (100.0, 5.0)],
        };
        let text = draw(&[Panel {
            title: "a title",
            lines: vec![line],
        }]);
        assert!(
            text.contains("<polyline points=\"80.0,200.0 530.0,45.5 980.0,122.7\""),
            "{text}"
        );
        assert!(text.contains("a title") && text.ends_with("</svg>\n"));
    }
}
