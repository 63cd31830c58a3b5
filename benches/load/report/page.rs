//! The HTML around the figures: the parts of a page and their style.

use std::fmt::Write;

use super::chart::{Chart, escape, style};

/// A page, from top to bottom.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) title: String,
    /// One sentence or two under the title.
    pub(super) lead: String,
    /// Important messages: faults, and figures that describe the generator instead of the server.
    pub(super) notices: Vec<Notice>,
    /// The most important figures.
    pub(super) tiles: Vec<Tile>,
    pub(super) sections: Vec<Section>,
}

/// An important message.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) good: bool,
    pub(super) text: String,
}

/// A large number.
#[derive(Debug)]
pub(super) struct Tile {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) detail: String,
}

/// Figures and tables under a heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) lead: String,
    pub(super) figures: Vec<Figure>,
    pub(super) tables: Vec<Table>,
    /// Commands that repeat the run.
    pub(super) commands: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// A chart with its texts.
#[derive(Debug)]
pub(super) struct Figure {
    /// The name of its file, without extension.
    pub(super) name: String,
    pub(super) title: String,
    /// An explanation of the chart.
    pub(super) caption: String,
    pub(super) chart: Chart,
    /// True if it takes the whole width of the page; otherwise two figures share a row.
    pub(super) wide: bool,
}

/// A table. The first column contains texts, the others numbers.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Page {
    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
             <meta name=\"color-scheme\" content=\"light dark\"/><title>{}</title><style>{}{STYLE}</style></head><body>\
             <main><header><h1>{}</h1><p class=\"lead\">{}</p></header>",
            escape(&self.title),
            style::css(),
            escape(&self.title),
            escape(&self.lead)
        );
        for notice in &self.notices {
            let class = if notice.good { "good" } else { "bad" };
            let sign = if notice.good { '✓' } else { '!' };
            push(
                &mut html,
                format_args!(
                    "<p class=\"notice {class}\"><b>{sign}</b> {}</p>",
                    escape(&notice.text)
                ),
            );
        }
        if !self.tiles.is_empty() {
            html.push_str("<div class=\"tiles\">");
            for tile in &self.tiles {
                tile.write(&mut html);
            }
            html.push_str("</div>");
        }
        for section in &self.sections {
            section.write(&mut html);
        }
        html.push_str("</main></body></html>\n");
        html
    }

    /// Each figure as a file: its name and the SVG.
    pub(super) fn svgs(&self) -> Vec<(String, String)> {
        let figures = self.sections.iter().flat_map(|section| &section.figures);
        figures
            .map(|figure| {
                let width = if figure.wide { WIDE } else { ALONE };
                let svg = figure
                    .chart
                    .draw(width)
                    .standalone(&figure.title, &figure.caption);
                (figure.name.clone(), svg)
            })
            .collect()
    }
}

impl Tile {
    fn write(&self, html: &mut String) {
        push(
            html,
            format_args!(
                "<div class=\"tile\"><span>{}</span><strong>{}</strong><small>{}</small></div>",
                escape(&self.label),
                escape(&self.value),
                escape(&self.detail)
            ),
        );
    }
}

impl Section {
    fn write(&self, html: &mut String) {
        push(html, format_args!("<section><h2>{}</h2>", escape(&self.title)));
        if !self.lead.is_empty() {
            push(html, format_args!("<p class=\"lead\">{}</p>", escape(&self.lead)));
        }
        if !self.figures.is_empty() {
            html.push_str("<div class=\"figures\">");
            let mut figures = self.figures.iter().peekable();
            while let Some(figure) = figures.next() {
                match figures.next_if(|next| figure.shares_a_row_with(next)) {
                    Some(partner) => {
                        figure.write(html, HALF);
                        partner.write(html, HALF);
                    }
                    None => figure.write(html, WIDE),
                }
            }
            html.push_str("</div>");
        }
        for table in &self.tables {
            table.write(html);
        }
        for command in &self.commands {
            push(html, format_args!("<pre>{}</pre>", escape(command)));
        }
        if !self.notes.is_empty() {
            html.push_str("<ul>");
            for note in &self.notes {
                push(html, format_args!("<li>{}</li>", escape(note)));
            }
            html.push_str("</ul>");
        }
        html.push_str("</section>");
    }
}

impl Figure {
    /// True if two figures can share a row: both are narrow, and similar in height.
    fn shares_a_row_with(&self, next: &Self) -> bool {
        let (own, other) = (self.chart.draw(HALF).height(), next.chart.draw(HALF).height());
        !self.wide && !next.wide && own.max(other) < 1.5 * own.min(other)
    }

    fn write(&self, html: &mut String, width: f64) {
        push(
            html,
            format_args!(
                "<figure class=\"{}\"><h3>{}</h3><div class=\"plot\">{}</div><figcaption>{}</figcaption></figure>",
                if width == WIDE { "wide" } else { "half" },
                escape(&self.title),
                self.chart.draw(width).inline(&self.title),
                escape(&self.caption)
            ),
        );
    }
}

impl Table {
    fn write(&self, html: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        html.push_str("<div class=\"scroll\"><table>");
        if !self.title.is_empty() {
            push(html, format_args!("<caption>{}</caption>", escape(&self.title)));
        }
        html.push_str("<thead><tr>");
        for cell in &self.head {
            push(html, format_args!("<th scope=\"col\">{}</th>", escape(cell)));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let (open, close) = if index == 0 {
                    ("<th scope=\"row\">", "</th>")
                } else {
                    ("<td>", "</td>")
                };
                push(html, format_args!("{open}{}{close}", escape(cell)));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = html.write_fmt(text); // writing to a String never fails
}

/// The width of a figure's drawing: one of two in a row, over the whole page, and in a file.
const HALF: f64 = 508.0;
const WIDE: f64 = 1082.0;
const ALONE: f64 = 680.0;

const STYLE: &str = "\
*{box-sizing:border-box}\
:root{--page:#f3f5f8;--line:#dfe4ea}\
@media screen and (prefers-color-scheme:dark){:root{--page:#0d1117;--line:#2a323e}}\
body{margin:0;background:var(--page);color:var(--ink);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}\
main{max-width:1180px;margin:0 auto;padding:40px 24px 64px}\
h1{font-size:32px;line-height:1.15;letter-spacing:-.02em;margin:0 0 8px}\
h2{font-size:21px;letter-spacing:-.01em;margin:44px 0 6px}\
h3{font-size:15px;margin:0 0 12px}\
.lead{color:var(--soft);margin:0 0 14px;max-width:84ch}\
.notice{border-radius:8px;padding:9px 14px;margin:10px 0;max-width:none}\
.notice.good{background:var(--goodfill)}.notice.bad{background:var(--badfill)}\
.notice b{display:inline-block;width:1.2em}.notice.good b{color:var(--good)}.notice.bad b{color:var(--bad)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(172px,1fr));gap:12px;margin:20px 0 0}\
.tile,figure,.scroll,pre{background:var(--ground);border:1px solid var(--line);border-radius:12px}\
.tile{padding:14px 16px}.tile span,.tile small{display:block;color:var(--soft);font-size:13px;line-height:1.35}\
.tile strong{display:block;font-size:27px;line-height:1.25;letter-spacing:-.02em;font-weight:650;white-space:nowrap}\
.figures{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;margin:12px 0}\
figure{margin:0;padding:18px 24px 16px;display:flex;flex-direction:column;min-width:0}\
figure.wide{grid-column:1/-1}\
figcaption{color:var(--soft);font-size:13.5px;margin-top:auto;padding-top:12px;max-width:92ch}\
.plot{overflow-x:auto}.plot svg{display:block;max-width:100%;height:auto}\
.scroll{overflow-x:auto;margin:12px 0}\
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-weight:650;padding:14px 16px 6px}\
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}\
thead th{border-top:0;color:var(--soft);font-weight:500;white-space:normal;vertical-align:bottom;line-height:1.25}\
th:first-child{text-align:left;padding-left:16px;font-weight:500}\
td:last-child,th:last-child{padding-right:16px}\
pre{padding:12px 16px;overflow-x:auto;font-size:13px;margin:10px 0}\
ul{color:var(--soft);font-size:13.5px;padding-left:20px}\
@media screen and (max-width:900px){.figures{grid-template-columns:minmax(0,1fr)}main{padding:24px 14px 40px}\
figure{padding:14px}.plot svg{min-width:440px}figure.wide .plot svg{min-width:760px}}\
@media print{:root{--page:#fff}body{font-size:12px}main{max-width:none;padding:0}h2{break-after:avoid}\
figure,.tile,tr,.notice{break-inside:avoid}figure{padding:10px 12px}.tile{padding:8px 12px}.tile strong{font-size:20px}\
.tiles{grid-template-columns:repeat(4,1fr)}pre{white-space:pre-wrap}\
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}";
