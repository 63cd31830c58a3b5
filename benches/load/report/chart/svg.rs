//! Writes SVG. Numbers are written in one place, and text is escaped in one place.

use std::fmt::{Display, Write};

use super::{style, text};

/// A finished chart: the content of an SVG, and its size.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) body: String,
}

impl Drawing {
    pub(crate) fn height(&self) -> f64 {
        self.height
    }

    /// The SVG for a page that contains [`style::css`]. `label` is for screen readers.
    pub(crate) fn inline(&self, label: &str) -> String {
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            coordinate(self.width),
            coordinate(self.height),
            coordinate(self.width),
            coordinate(self.height),
            escape(label),
            self.body
        )
    }

    /// The SVG for a file: with style, background, title and one line below the title.
    pub(crate) fn standalone(&self, title: &str, subtitle: &str) -> String {
        let lines = text::wrapped(subtitle, self.width, SUBTITLE_PX);
        let head = 52.0 + SUBTITLE_PX * 1.4 * lines.len() as f64;
        let (width, height) = (self.width + 2.0 * MARGIN, self.height + head + MARGIN);
        let mut svg = Svg::default();
        svg.rect("ground", 0.0, 0.0, width, height, 10.0);
        svg.text("title", MARGIN, 34.0, Anchor::Start, title);
        for (index, line) in lines.iter().enumerate() {
            let y = 56.0 + SUBTITLE_PX * 1.4 * index as f64;
            svg.text("subtitle", MARGIN, y, Anchor::Start, line);
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\" role=\"img\" aria-label=\"{}\"><style>{}</style>{}<g transform=\"translate({MARGIN} {})\">\
             {}</g></svg>\n",
            escape(&format!("{title}. {subtitle}")),
            style::css(),
            svg.body,
            coordinate(head),
            self.body,
            w = coordinate(width),
            h = coordinate(height),
        )
    }
}

/// Elements, one after the other.
#[derive(Default)]
pub(super) struct Svg {
    pub(super) body: String,
}

/// The end of a text that is at its position.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{}\" y=\"{}\"{anchor}>{}</text>",
            coordinate(x),
            coordinate(y),
            escape(text)
        ));
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            coordinate(from.0),
            coordinate(from.1),
            coordinate(to.0),
            coordinate(to.1)
        ));
    }

    pub(super) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64, radius: f64) {
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"/>",
            coordinate(x),
            coordinate(y),
            coordinate(width.max(0.0)),
            coordinate(height.max(0.0)),
            coordinate(radius)
        ));
    }

    /// A path through the points of each run; a run of one point is a dot, by the round caps of its class.
    pub(super) fn path(&mut self, class: &str, runs: &[Vec<(f64, f64)>]) {
        let mut path = String::new();
        for run in runs {
            for (index, point) in run.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{} {}", coordinate(point.0), coordinate(point.1)); // writing to a String never fails
            }
            if let [only] = run.as_slice() {
                let _ = write!(path, "L{} {}", coordinate(only.0), coordinate(only.1)); // writing to a String never fails
            }
        }
        if !path.is_empty() {
            self.push(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// A closed shape.
    pub(super) fn shape(&mut self, class: &str, corners: &[(f64, f64)]) {
        let mut path = String::new();
        for (index, corner) in corners.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{} {}", coordinate(corner.0), coordinate(corner.1)); // writing to a String never fails
        }
        if !path.is_empty() {
            self.push(format_args!("<path class=\"{class}\" d=\"{path}Z\"/>"));
        }
    }

    /// A mark for a point, with a form and a colour; `about` appears when the pointer is on it.
    pub(super) fn marker(&mut self, form: usize, open: bool, (x, y): (f64, f64), about: &str) {
        let class = if open { "dot open" } else { "dot" };
        let (x_, y_) = (coordinate(x), coordinate(y));
        let shape = match form % 4 {
            0 => format!("<circle class=\"{class}\" cx=\"{x_}\" cy=\"{y_}\" r=\"3.6\">"),
            1 => corners(
                class,
                &[
                    (x - 3.4, y - 3.4),
                    (x + 3.4, y - 3.4),
                    (x + 3.4, y + 3.4),
                    (x - 3.4, y + 3.4),
                ],
            ),
            2 => corners(class, &[(x, y - 4.4), (x + 4.2, y + 3.2), (x - 4.2, y + 3.2)]),
            _ => corners(class, &[(x, y - 4.8), (x + 4.8, y), (x, y + 4.8), (x - 4.8, y)]),
        };
        let name = if form.is_multiple_of(4) { "circle" } else { "path" };
        self.push(format_args!("{shape}<title>{}</title></{name}>", escape(about)));
    }

    /// A group with a CSS class around the drawing of `inside`.
    pub(super) fn group(&mut self, class: &str, inside: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g class=\"{class}\">"));
        inside(self);
        self.push(format_args!("</g>"));
    }

    /// The text that appears when the pointer is on the enclosing group; must be the group's first element.
    pub(super) fn about(&mut self, text: &str) {
        self.push(format_args!("<title>{}</title>", escape(text)));
    }

    fn push(&mut self, element: impl Display) {
        let _ = write!(self.body, "{element}"); // writing to a String never fails
    }
}

fn corners(class: &str, corners: &[(f64, f64)]) -> String {
    let points: Vec<String> = corners
        .iter()
        .map(|(x, y)| format!("{} {}", coordinate(*x), coordinate(*y)))
        .collect();
    format!("<path class=\"{class}\" d=\"M{}Z\">", points.join("L"))
}

/// A coordinate with at most one digit after the point; invariant 1 of the module ends here.
fn coordinate(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let rounded = (value * 10.0).round() / 10.0;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Escapes text for an element or an attribute. Control characters, which XML does not allow, become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push(' ')
            }
            character => escaped.push(character),
        }
    }
    escaped
}

const MARGIN: f64 = 24.0;
const SUBTITLE_PX: f64 = 13.0;
