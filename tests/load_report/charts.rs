//! Properties of every chart: ticks around the values, finite coordinates, well-formed XML, labels that do not overlap.

use crate::report::chart::scale::Scale;
use crate::report::chart::{
    Axis, Bar, BarChart, Chart, Colour, Group, Kind, LineChart, Panel, Point, Rule, Series, Stroke, Target,
    Unit, escape, text,
};

const UNITS: [Unit; 8] = [
    Unit::Count,
    Unit::PerSecond("messages"),
    Unit::Seconds,
    Unit::Elapsed,
    Unit::Bytes,
    Unit::Share,
    Unit::Cpus,
    Unit::Times,
];

/// Numbers of all magnitudes at which an axis of this unit may end.
fn magnitudes(unit: Unit) -> impl Iterator<Item = f64> {
    let least = if unit == Unit::Seconds { -9 } else { -4 };
    (least..13).flat_map(|power| [1.0, 1.3, 2.0, 4.999, 5.0, 9.99].map(|digits| digits * 10f64.powi(power)))
}

#[test]
fn round_ticks_reach_around_the_values_of_every_unit_and_magnitude() {
    for unit in UNITS {
        for most in magnitudes(unit) {
            let scale = Scale::new(Kind::Linear, unit, [most / 3.0, most].into_iter(), 5.0);
            let ticks = scale.ticks();
            assert_eq!(ticks[0].value, 0.0, "{unit:?} {most}");
            let last = ticks.last().unwrap();
            assert!(last.value >= most * (1.0 - 1e-6), "{unit:?} {most}: {last:?}");
            assert!((2..=11).contains(&ticks.len()), "{unit:?} {most}: {ticks:?}");
            assert!(ticks.windows(2).all(|pair| pair[0].value < pair[1].value));
            if unit != Unit::Count || most > 1.0 {
                assert!(
                    ticks.windows(2).all(|pair| pair[0].label != pair[1].label),
                    "{unit:?} {most}: {ticks:?}"
                );
            }
        }
    }
}

#[test]
fn below_zero_has_ticks_too() {
    let scale = Scale::new(Kind::Linear, Unit::Count, [-30.0, 70.0].into_iter(), 5.0);
    assert!(scale.ticks()[0].value <= -30.0);
    assert!(scale.position(-30.0).unwrap() < scale.position(0.0).unwrap());
}

#[test]
fn a_logarithmic_axis_holds_its_values_and_says_at_least_two_of_them() {
    for unit in UNITS {
        for least in magnitudes(unit) {
            for factor in [1.0, 3.0, 40.0, 1e5] {
                let scale = Scale::new(Kind::Log, unit, [least, least * factor].into_iter(), 4.0);
                let (low, high) = (
                    scale.position(least).unwrap(),
                    scale.position(least * factor).unwrap(),
                );
                assert!(
                    low <= high && (low < high || factor == 1.0),
                    "{unit:?} {least} {factor}"
                );
                let ticks = scale.ticks();
                assert!(ticks.len() >= 2, "{unit:?} {least} {factor}: {ticks:?}");
                assert!(
                    ticks.windows(2).all(|pair| pair[0].label != pair[1].label),
                    "{unit:?} {ticks:?}"
                );
            }
        }
    }
}

#[test]
fn zero_and_less_lie_on_the_lower_end_of_a_logarithmic_axis() {
    let scale = Scale::new(Kind::Log, Unit::Seconds, [0.0, 0.001, 1.0].into_iter(), 4.0);
    assert_eq!(scale.position(0.0), Some(0.0));
    assert_eq!(scale.position(-1.0), Some(0.0));
    assert!(scale.position(0.01).unwrap() > 0.0);
    let zeros = Scale::new(Kind::Log, Unit::Seconds, [0.0, 0.0].into_iter(), 4.0);
    assert_eq!(zeros.position(0.0), Some(0.0));
}

#[test]
fn each_nine_is_as_wide_as_the_one_before() {
    let scale = Scale::new(Kind::Nines, Unit::Share, [0.0, 0.5, 0.9999, 1.0].into_iter(), 5.0);
    let at = |share| scale.position(share).unwrap();
    for (one, next) in [(0.0, 0.9), (0.9, 0.99), (0.99, 0.999), (0.999, 0.9999)] {
        assert!((at(next) - at(one) - 0.25).abs() < 1e-9, "{one} to {next}");
    }
    assert_eq!(at(1.0), 1.0, "the maximum shares the end");
    let labels: Vec<&str> = scale.ticks().iter().map(|tick| tick.label.as_str()).collect();
    assert_eq!(labels, ["0", "50", "75", "90", "99", "99.9", "99.99"]);
}

#[test]
fn an_axis_without_values_or_with_none_that_count_still_is_one() {
    for kind in [Kind::Linear, Kind::Tight, Kind::Log, Kind::Nines] {
        for values in [
            vec![],
            vec![f64::NAN],
            vec![f64::INFINITY, f64::NEG_INFINITY],
            vec![0.0],
        ] {
            let scale = Scale::new(kind, Unit::Seconds, values.into_iter(), 5.0);
            assert!(scale.ticks().len() >= 2, "{kind:?}");
            assert!(
                scale
                    .position(0.3)
                    .is_some_and(|place| (0.0..=1.0).contains(&place)),
                "{kind:?}"
            );
            assert_eq!(scale.position(f64::NAN), None);
        }
    }
}

#[test]
fn a_value_is_said_in_the_unit_that_fits() {
    let said = [
        (Unit::Seconds, 0.000_000_33, "330\u{a0}ns"),
        (Unit::Seconds, 0.001, "1.00\u{a0}ms"),
        (Unit::Seconds, 0.000_999, "999\u{a0}µs"),
        (Unit::Seconds, 0.0, "0\u{a0}s"),
        (Unit::Bytes, 262.0, "262\u{a0}B"),
        (Unit::Bytes, 1024.0, "1.00\u{a0}KiB"),
        (Unit::Count, 1_234_567.0, "1,234,567"),
        (Unit::Count, 51.0, "51"),
        (Unit::Share, 0.125, "12.5\u{a0}%"),
        (Unit::Times, 1.4, "1.40×"),
        (Unit::Elapsed, 90.0, "1.50\u{a0}min"),
    ];
    for (unit, value, text) in said {
        assert_eq!(unit.value(value), text);
    }
    assert_eq!(Unit::Count.value(f64::NAN), "–");
}

#[test]
fn labels_are_spread_in_their_order_and_within_their_bounds() {
    for wanted in [
        vec![50.0],
        vec![50.0, 51.0, 49.0],
        vec![0.0, 0.0, 100.0, 100.0],
        vec![10.0, 24.0, 25.0, 80.0],
        vec![],
    ] {
        let places = text::spread(&wanted, 15.0, 0.0, 100.0);
        let mut both: Vec<(f64, f64)> = wanted.into_iter().zip(places).collect();
        both.sort_by(|one, other| one.1.total_cmp(&other.1));
        for pair in both.windows(2) {
            assert!(
                pair[1].1 - pair[0].1 >= 15.0 - 1e-9 && pair[0].0 <= pair[1].0,
                "{both:?}"
            );
        }
        assert!(
            both.iter().all(|(_, place)| (0.0..=100.0).contains(place)),
            "{both:?}"
        );
    }
    assert_eq!(
        text::spread(&[20.0, 60.0], 15.0, 0.0, 100.0),
        [20.0, 60.0],
        "those apart stay"
    );
}

#[test]
fn text_is_cut_or_wrapped_to_its_room() {
    let long = "a label that is much too long for its column";
    let cut = text::cut(long, 80.0, 12.0);
    assert!(
        cut.ends_with('…') && text::width(&cut, 12.0) <= 80.0 + 12.0,
        "{cut}"
    );
    assert_eq!(text::cut("short", 80.0, 12.0), "short");
    let lines = text::wrapped(long, 120.0, 12.0);
    assert_eq!(lines.join(" "), long);
    assert!(
        lines.iter().all(|line| text::width(line, 12.0) <= 120.0),
        "{lines:?}"
    );
}

#[test]
fn text_of_any_kind_is_escaped() {
    assert_eq!(
        escape("<a href=\"x\">'&'</a>\u{0}\n"),
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;  "
    );
}

#[test]
fn lines_of_no_one_and_impossible_points_are_drawn_without_a_trace_of_nan() {
    let points: [&[(f64, f64)]; 6] = [
        &[],
        &[(1.0, 1.0)],
        &[(0.0, 0.0), (0.0, 0.0)],
        &[(f64::NAN, 1.0), (1.0, f64::NAN), (2.0, 3.0)],
        &[
            (f64::INFINITY, 1.0),
            (1.0, f64::NEG_INFINITY),
            (f64::NEG_INFINITY, f64::INFINITY),
        ],
        &[(1e-300, 1e300), (1e300, 1e-300)],
    ];
    for points in points {
        for kind in [Kind::Linear, Kind::Tight, Kind::Log, Kind::Nines] {
            for stroke in [
                Stroke::Line,
                Stroke::Area,
                Stroke::Marked,
                Stroke::Marks,
                Stroke::Dashed,
            ] {
                sound(&Chart::Lines(lines(kind, stroke, points)));
            }
        }
    }
    let nothing = LineChart {
        x: Axis::linear("x", Unit::Count),
        panels: Vec::new(),
        rules: Vec::new(),
    };
    sound(&Chart::Lines(nothing));
}

#[test]
fn bars_of_no_and_impossible_length_are_drawn_without_a_trace_of_nan() {
    for value in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        for most in [None, Some(0.5), Some(f64::NAN)] {
            sound(&Chart::Bars(bars(&[value, 2.0], most)));
        }
    }
    sound(&Chart::Bars(bars(&[], None)));
}

#[test]
fn a_gap_interrupts_a_line() {
    let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 2.0)];
    let svg = lines(Kind::Linear, Stroke::Line, &points).draw(500.0).inline("");
    let path = svg
        .split("class=\"line\" d=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(path.matches('M').count(), 2, "{path}");
}

#[test]
fn a_bar_beyond_the_edge_is_broken_and_says_its_length() {
    let svg = bars(&[1.0, 50.0], Some(2.0)).draw(500.0).inline("");
    assert_eq!(svg.matches("class=\"break\"").count(), 2, "{svg}");
    assert!(svg.contains(">50.0×</text>"), "{svg}");
    let whole = bars(&[1.0, 2.0], Some(2.0)).draw(500.0).inline("");
    assert!(!whole.contains("class=\"break\""));
}

fn lines(kind: Kind, stroke: Stroke, points: &[(f64, f64)]) -> LineChart {
    let series = |label: &str, colour| Series {
        label: label.to_owned(),
        colour,
        stroke,
        points: points.iter().map(|(x, y)| Point::new(*x, *y)).collect(),
    };
    let panel = || Panel {
        height: 90.0,
        y: Axis::linear("a <title>", Unit::Seconds).with(if kind == Kind::Linear { kind } else { Kind::Log }),
        series: vec![
            series("p<99>", Colour::Hue(1)),
            series("\"&\"", Colour::Step(7)),
            series("", Colour::Muted),
        ],
        rules: vec![rule("limit & more")],
    };
    LineChart {
        x: Axis::linear("x", Unit::Count).with(kind),
        panels: vec![panel(), panel()],
        rules: vec![rule("<here>"), rule("there")],
    }
}

fn bars(values: &[f64], most: Option<f64>) -> BarChart {
    let bar = |value: &f64| Bar {
        label: "a & b <c>".to_owned(),
        value: *value,
        interval: Some((value * 0.9, value * 1.1)),
        colour: Colour::Hue(9),
        target: Some(Target {
            most: 1.0,
            met: *value <= 1.0,
        }),
    };
    BarChart {
        axis: Axis::linear("cost", Unit::Times),
        groups: vec![
            Group {
                title: "<group>".to_owned(),
                bars: values.iter().map(bar).collect(),
            },
            Group {
                title: String::new(),
                bars: Vec::new(),
            },
        ],
        rule: Some(rule("level")),
        most,
    }
}

fn rule(label: &str) -> Rule {
    Rule {
        value: 1.0,
        label: label.to_owned(),
    }
}

/// Checks that both forms of the drawing are well-formed and all their numbers are finite.
fn sound(chart: &Chart) {
    for width in [60.0, 500.0, 1100.0] {
        let drawing = chart.draw(width);
        for svg in [
            drawing.inline("a \"label\""),
            drawing.standalone("<title>", "a & b"),
        ] {
            well_formed(&svg);
            finite(&svg);
        }
    }
}

/// Fails on an attribute whose value should be a finite number and is not.
pub(crate) fn finite(svg: &str) {
    for word in ["NaN", "inf"] {
        let found = svg
            .match_indices(word)
            .find(|(at, _)| !svg[..*at].ends_with(char::is_alphabetic));
        let around = found.map(|(at, _)| &svg[at.saturating_sub(60)..(at + 20).min(svg.len())]);
        assert_eq!(around, None);
    }
}

/// Fails unless the text is well-formed: elements closed in order, attributes quoted and given once, `<` and `&` only
/// as markup. It knows as much of XML as the report uses: no comments and no CDATA.
pub(crate) fn well_formed(document: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = document
        .strip_prefix("<!doctype html>")
        .unwrap_or(document)
        .trim();
    while let Some(start) = rest.find('<') {
        references(&rest[..start]);
        assert!(
            !open.is_empty() || rest[..start].trim().is_empty(),
            "text outside: {}",
            &rest[..start]
        );
        let end = rest[start..].find('>').expect("each < has its >") + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let name = tag.split(' ').next().expect("split gives one part at least");
        assert!(
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric()),
            "<{tag}>"
        );
        attributes(&tag[name.len()..]);
        if !closed {
            open.push(name);
        }
    }
    assert!(
        open.is_empty() && rest.trim().is_empty(),
        "left open: {open:?}, after it: {rest}"
    );
}

fn attributes(mut rest: &str) {
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (name, value) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("not an attribute: {rest}"));
        let name = name.strip_prefix(' ').expect("a space before each attribute");
        assert!(
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == '-'),
            "{name}"
        );
        assert!(!names.contains(&name), "{name} twice");
        names.push(name);
        let (value, after) = value.split_once('"').expect("a closing quote");
        references(value);
        rest = after;
    }
}

fn references(text: &str) {
    for (at, _) in text.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        assert!(
            known.iter().any(|reference| text[at..].starts_with(reference)),
            "a bare &: {text}"
        );
    }
}
