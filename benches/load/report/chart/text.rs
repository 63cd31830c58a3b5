//! Estimates the width of text, and places labels so that they do not overlap.

/// The width of `text` at `size_px`, estimated from above: the reader's font is unknown, so the widths are those of a
/// wide font (DejaVu Sans).
pub(crate) fn width(text: &str, size_px: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size_px
}

fn advance(character: char) -> f64 {
    match character {
        'i' | 'j' | 'l' | '\'' | '|' | '.' | ',' | ':' | ';' | '·' => 0.32,
        ' ' | '\u{a0}' | 'f' | 't' | 'r' | 'I' | '(' | ')' | '/' | '-' | '–' | '!' | '[' | ']' => 0.41,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '→' | '—' => 0.98,
        'A'..='Z' | '×' | '≤' | '≥' | '+' | '=' | '<' | '>' | '~' | '&' | '#' => 0.79,
        '\u{2e80}'.. => 1.0,
        _ => 0.64,
    }
}

/// The text in lines of at most `room_px`, broken at spaces; a word that is longer keeps a line of its own.
pub(crate) fn wrapped(text: &str, room_px: f64, size_px: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if width(line, size_px) + width(word, size_px) + 0.4 * size_px <= room_px => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The text, or as much of it as fits into `room_px` with an ellipsis.
pub(crate) fn cut(text: &str, room_px: f64, size_px: f64) -> String {
    if width(text, size_px) <= room_px {
        return text.to_owned();
    }
    let mut kept = text.to_owned();
    while kept.pop().is_some() {
        if width(&kept, size_px) + size_px <= room_px {
            break;
        }
    }
    format!("{}…", kept.trim_end())
}

/// Positions near the wanted ones, in the same order, at least `apart` from each other, and within `low..=high` if
/// there is room for all.
pub(crate) fn spread(wanted: &[f64], apart: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    // Labels that would touch form a run, which is centred on the mean of the wanted positions.
    let mut runs: Vec<Run> = Vec::new();
    for &index in &order {
        runs.push(Run {
            sum: wanted[index],
            count: 1.0,
            members: vec![index],
        });
        while let [.., before, last] = runs.as_slice() {
            if before.last(apart, low, high) + apart <= last.first(apart, low, high) {
                break;
            }
            let last = runs.pop().expect("two runs were just matched");
            let before = runs.last_mut().expect("two runs were just matched");
            before.sum += last.sum;
            before.count += last.count;
            before.members.extend(last.members);
        }
    }
    let mut places = vec![low; wanted.len()];
    for run in &runs {
        let mut place = run.first(apart, low, high);
        for &index in &run.members {
            places[index] = place;
            place += apart;
        }
    }
    places
}

struct Run {
    sum: f64,
    count: f64,
    members: Vec<usize>,
}

impl Run {
    fn first(&self, apart: f64, low: f64, high: f64) -> f64 {
        let length = (self.count - 1.0) * apart;
        (self.sum / self.count - length / 2.0).min(high - length).max(low)
    }

    fn last(&self, apart: f64, low: f64, high: f64) -> f64 {
        self.first(apart, low, high) + (self.count - 1.0) * apart
    }
}
