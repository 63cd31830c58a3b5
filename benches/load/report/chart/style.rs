//! The colours and fonts of all charts, as CSS for a page or an SVG file.
//!
//! The hues are those of Okabe and Ito, which colour-blind readers can distinguish, darkened or lightened for each
//! theme until a line has a contrast of at least 3 to the background. Every kind has a marker of its own beside its
//! hue. Ordered values (percentiles) are one hue in steps, so that the order is visible. Text is never coloured.

/// How many hues there are.
pub(crate) const HUES: usize = 5;
/// How many steps of the ordered hue there are.
pub(crate) const STEPS: usize = 3;

/// The style, for `<style>` in an SVG or a page. The page may use its variables.
pub(crate) fn css() -> String {
    format!(
        ":root{{{LIGHT}}}@media screen and (prefers-color-scheme:dark){{:root{{{DARK}}}}}{}",
        RULES
    )
}

const LIGHT: &str = "--ground:#fff;--ink:#16202c;--soft:#56616f;--grid:#e4e8ed;--edge:#aeb7c2;--track:#f1f4f7;\
    --c-muted:#8d97a5;--c-h0:#0072b2;--c-h1:#c85200;--c-h2:#00875f;--c-h3:#a9508a;--c-h4:#9a7400;\
    --c-s0:#6aa9d8;--c-s1:#1f78b8;--c-s2:#0b3c66;--good:#00734f;--bad:#b3261e;--goodfill:#dff3ea;--badfill:#fbe4e1;";
const DARK: &str = "--ground:#161c25;--ink:#eaf0f6;--soft:#a3afbd;--grid:#2a323e;--edge:#566272;--track:#1e2631;\
    --c-muted:#7e8a99;--c-h0:#56b4e9;--c-h1:#f58a3c;--c-h2:#2fc596;--c-h3:#e08fc2;--c-h4:#e3c04a;\
    --c-s0:#3f7fb4;--c-s1:#62b5ea;--c-s2:#cdeaff;--good:#4fd0a3;--bad:#ff8f85;--goodfill:#12392e;--badfill:#45211f;";

const RULES: &str = "\
.chart{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-variant-numeric:tabular-nums;\
-webkit-print-color-adjust:exact;print-color-adjust:exact}\
.chart text{fill:var(--ink);font-size:12px}\
.chart .ground{fill:var(--ground)}\
.chart .title{font-size:18px;font-weight:650}\
.chart .subtitle{font-size:13px;fill:var(--soft)}\
.chart .tick{font-size:11px;fill:var(--soft)}\
.chart .axis{font-size:12px;fill:var(--soft)}\
.chart .label{font-size:12px}\
.chart .strong{font-weight:650}\
.chart .soft{fill:var(--soft)}\
.chart .good{fill:var(--good)}\
.chart .bad{fill:var(--bad)}\
.chart .grid{stroke:var(--grid);stroke-width:1}\
.chart .base{stroke:var(--edge);stroke-width:1}\
.chart .rule{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}\
.chart .track{fill:var(--track)}\
.chart .line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.chart .dashed{stroke-dasharray:6 4;stroke-width:1.6}\
.chart .area{fill:var(--c);opacity:.13}\
.chart .dot{fill:var(--c);stroke:var(--ground);stroke-width:1.2}\
.chart .open{fill:var(--ground);stroke:var(--c);stroke-width:1.8}\
.chart .leader{stroke:var(--c);stroke-width:1;stroke-dasharray:1 2.5}\
.chart .bar{fill:var(--c)}\
.chart .break{fill:none;stroke:var(--ground);stroke-width:3}\
.chart .whisker{stroke:var(--ink);stroke-width:1.4}\
.chart .halo{stroke:var(--ground);stroke-width:4;opacity:.8}\
.chart .target{stroke:var(--ink);stroke-width:2.4}\
.chart .targettip{fill:var(--ink)}\
.h0{--c:var(--c-h0)}.h1{--c:var(--c-h1)}.h2{--c:var(--c-h2)}.h3{--c:var(--c-h3)}.h4{--c:var(--c-h4)}\
.s0{--c:var(--c-s0)}.s1{--c:var(--c-s1)}.s2{--c:var(--c-s2)}.muted{--c:var(--c-muted)}";
