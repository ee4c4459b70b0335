//! The frame of a plot: title, legend, axes, lines.
//!
//! All plots are drawn 400 units wide and are shown 330 to 420 pixels wide, so that their letters
//! have about the size of the text around them, on a phone and on a desk.

use std::fmt::Write as _;

use super::{escape, scale::Scale};

/// Width of all plots.
pub(super) const WIDTH: f64 = 400.0;
/// Where the area between the axes is.
pub(super) const LEFT: f64 = 50.0;
pub(super) const RIGHT: f64 = WIDTH - 14.0;
pub(super) const TOP: f64 = 24.0;
pub(super) const BOTTOM: f64 = 192.0;
/// Width of a letter, about.
const LETTER: f64 = 6.6;
/// Below that: tick labels and what the axis counts.
const FOOT: f64 = 40.0;

/// How a line or an area is told from the others, beside its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swatch {
    Line,
    Area,
}

/// A plot that is being put together.
#[derive(Debug)]
pub(super) struct Plot {
    title: String,
    legend: Vec<(Swatch, &'static str, String)>,
    svg: String,
    bottom: f64,
    height: f64,
    note: String,
}

impl Plot {
    pub(super) fn new(title: impl Into<String>) -> Self {
        let (legend, svg, note) = (Vec::new(), String::new(), String::new());
        Self { title: title.into(), legend, svg, bottom: BOTTOM, height: BOTTOM + FOOT, note }
    }

    /// With the horizontal axis somewhere else.
    pub(super) fn with_bottom(mut self, bottom: f64) -> Self {
        (self.bottom, self.height) = (bottom, bottom + FOOT);
        self
    }

    pub(super) fn set_height(&mut self, height: f64) {
        self.height = height;
    }

    /// Said below, in small letters.
    pub(super) fn note(&mut self, text: &str) {
        if !self.note.is_empty() {
            self.note.push(' ');
        }
        self.note.push_str(text);
    }

    /// Names a class of lines or areas.
    pub(super) fn legend(&mut self, swatch: Swatch, class: &'static str, text: &str) {
        self.legend.push((swatch, class, text.to_owned()));
    }

    /// Adds elements of SVG, which are taken as they are.
    pub(super) fn raw(&mut self, svg: &str) {
        self.svg.push_str(svg);
    }

    /// Adds a text, `anchor` being `start`, `middle` or `end`.
    pub(super) fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        );
    }

    /// The vertical axis: lines across, labels, and what it counts at the top.
    pub(super) fn y_axis(&mut self, scale: &Scale, unit: &str, label: impl Fn(f64) -> String) {
        for tick in &scale.ticks {
            let y = scale.at(*tick);
            let _ = writeln!(self.svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            self.text(LEFT - 6.0, y + 4.0, "end", "tick", &label(*tick));
        }
        self.text(0.0, 11.0, "start", "unit", unit);
    }

    /// The horizontal axis: marks and labels below, and what it counts in their middle.
    pub(super) fn x_axis(&mut self, scale: &Scale, unit: &str, label: impl Fn(f64) -> String) {
        let bottom = self.bottom;
        let _ = writeln!(self.svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{RIGHT}\"/>");
        let mut free = f64::MIN;
        for tick in &scale.ticks {
            let (x, label) = (scale.at(*tick), label(*tick));
            let _ = writeln!(self.svg, "<path class=\"axis\" d=\"M{x:.1} {bottom}v4\"/>");
            let half = label.chars().count() as f64 * LETTER / 2.0;
            if x - half < free {
                continue;
            }
            free = x + half + LETTER;
            // The last one would stick out of the picture.
            let anchor = if x > RIGHT - 12.0 { "end" } else { "middle" };
            let x = if anchor == "end" { RIGHT + 12.0 } else { x };
            self.text(x, bottom + 17.0, anchor, "tick", &label);
        }
        self.text((LEFT + RIGHT) / 2.0, self.height - 6.0, "middle", "unit", unit);
    }

    /// A line through points; where there is none, it is interrupted.
    pub(super) fn line(
        &mut self,
        class: &str,
        points: impl IntoIterator<Item = Option<(f64, f64)>>,
    ) {
        let mut path = String::new();
        let mut open = false;
        for point in points {
            let Some((x, y)) = point else {
                open = false;
                continue;
            };
            // `h0` makes a point of its own visible.
            let _ = if open {
                write!(path, "L{x:.1} {y:.1}")
            } else {
                write!(path, "M{x:.1} {y:.1}h0")
            };
            open = true;
        }
        if !path.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"line {class}\" d=\"{path}\"/>");
        }
    }

    /// An area between two lines of points, left to right.
    pub(super) fn area(&mut self, class: &str, upper: &[(f64, f64)], lower: &[(f64, f64)]) {
        let mut path = String::new();
        for (at, (x, y)) in upper.iter().chain(lower.iter().rev()).enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
        }
        if !path.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"area {class}\" d=\"{path}Z\"/>");
        }
    }

    /// The whole figure. `told` says in words what it shows.
    pub(super) fn end(self, told: &str) -> String {
        let mut out = format!("<figure><figcaption>{}", escape(&self.title));
        if !self.legend.is_empty() {
            out.push_str("<span class=\"legend\">");
            for (swatch, class, text) in &self.legend {
                let (width, square, shape) = match swatch {
                    Swatch::Line => (24, "", "path d=\"M1 5H23\" class=\"line"),
                    Swatch::Area => {
                        (12, " square", "rect width=\"12\" height=\"10\" rx=\"2\" class=\"area")
                    }
                };
                let _ = write!(
                    out,
                    "<span><svg class=\"swatch{square}\" viewBox=\"0 0 {width} 10\" aria-hidden=\"true\"><{shape} {class}\"/></svg>{}</span>",
                    escape(text)
                );
            }
            out.push_str("</span>");
        }
        let _ = write!(
            out,
            "</figcaption>\n<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            self.height,
            escape(told),
            self.svg
        );
        if !self.note.is_empty() {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(&self.note));
        }
        out + "</figure>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stop_where_nothing_was_measured() {
        let mut plot = Plot::new("t");
        plot.line("c0", [Some((1.0, 2.0)), Some((2.0, 2.0)), None, Some((4.0, 2.0))]);
        assert!(plot.end("x").contains("d=\"M1.0 2.0h0L2.0 2.0M4.0 2.0h0\""));
    }

    #[test]
    fn nothing_to_draw_draws_nothing() {
        let mut plot = Plot::new("<b>");
        plot.line("c0", []);
        plot.area("c0", &[], &[]);
        let figure = plot.end("\"quoted\"");
        assert!(!figure.contains("<path") && !figure.contains("<b>"), "{figure}");
        assert!(figure.contains("aria-label=\"&quot;quoted&quot;\""), "{figure}");
    }
}
