//! Answers of the API as text for people.

use std::io::{self, Write};

use serde_json::Value;

use super::request::{Arguments, Name};

/// Writes the answer to a command.
pub(super) fn print(arguments: &Arguments, answer: &Value, out: &mut impl Write) -> io::Result<()> {
    match arguments.name {
        Name::Publish => {
            writeln!(out, "published: {}", answer["published"])?;
            match &answer["position"] {
                Value::Null => Ok(()),
                place => position(place, out),
            }
        }
        Name::History => {
            for publication in answer["publications"].as_array().into_iter().flatten() {
                let data = publication.get("data").map_or_else(String::new, Value::to_string);
                writeln!(out, "{} {} {data}", publication["offset"], publication["time"])?;
            }
            if let Some(reason) = answer["reason"].as_str() {
                writeln!(out, "not complete: {reason}")?;
            }
            position(&answer["position"], out)
        }
        Name::Presence => {
            let columns = [
                ("user", "USER"),
                ("since", "SINCE_UNIX_MS"),
                ("connections", "CONNECTIONS"),
                ("info", "INFO"),
            ];
            table(&answer["members"], &columns, out)?;
            writeln!(out, "members: {}", answer["count"])?;
            next(answer, out)
        }
        Name::Channels => {
            let columns = [("subscribers", "SUBSCRIBERS"), ("channel", "CHANNEL")];
            table(&answer["channels"], &columns, out)?;
            next(answer, out)
        }
        Name::Connections => {
            let columns = [
                ("id", "CONNECTION"),
                ("user", "USER"),
                ("address", "ADDRESS"),
                ("port", "PORT"),
                ("subscriptions", "SUBSCRIPTIONS"),
                ("waiting_bytes", "WAITING_BYTES"),
                ("since", "SINCE_UNIX_MS"),
            ];
            table(&answer["connections"], &columns, out)?;
            next(answer, out)
        }
        Name::Services => {
            let columns = [
                ("pattern", "PATTERN"),
                ("waiting", "WAITING"),
                ("connection", "CONNECTION"),
                ("user", "USER"),
                ("protocol", "PROTOCOL"),
                ("core", "CORE"),
                ("weight", "WEIGHT"),
                ("window", "WINDOW"),
                ("in_flight", "IN_FLIGHT"),
                ("state", "STATE"),
                ("meta", "META"),
            ];
            table(&members_of_services(answer), &columns, out)?;
            next(answer, out)
        }
        Name::Disconnect => writeln!(out, "connections closed: {}", answer["connections"]),
        Name::Subscribe => writeln!(out, "connections subscribed: {}", answer["connections"]),
        Name::Unsubscribe => writeln!(out, "connections unsubscribed: {}", answer["connections"]),
        Name::Call => {
            for call in answer["answers"].as_array().into_iter().flatten() {
                let text = match (call["failure"].as_str(), call.get("error"), call.get("data")) {
                    (Some(failure), Some(error), _) => format!("{failure}: {error}"),
                    (Some(failure), None, _) => failure.to_owned(),
                    (None, _, Some(data)) => data.to_string(),
                    (None, _, None) => "answered without data".to_owned(),
                };
                writeln!(out, "{} {text}", shown(&call["connection"]))?;
            }
            let count = answer["answers"].as_array().map_or(0, Vec::len);
            writeln!(out, "connections called: {count}")?;
            match answer.get("incomplete") {
                Some(_) => writeln!(out, "there may be more, which were not called in time"),
                None => Ok(()),
            }
        }
        Name::Transmit => writeln!(out, "connections sent to: {}", answer["connections"]),
        Name::SetClaims | Name::RefreshToken => {
            writeln!(out, "tokens given: {}", answer["connections"])
        }
        Name::RemoveToken => writeln!(out, "tokens taken away: {}", answer["connections"]),
        Name::RemoveHistory => writeln!(out, "publications removed: {}", answer["removed"]),
    }
}

/// One row for each service of each pattern.
fn members_of_services(answer: &Value) -> Value {
    let mut rows = Vec::new();
    for service in answer["services"].as_array().into_iter().flatten() {
        for member in service["members"].as_array().into_iter().flatten() {
            let mut row = member.clone();
            row["pattern"] = service["pattern"].clone();
            row["waiting"] = service["waiting"].clone();
            let is = |mark: &str| member[mark] == Value::Bool(true);
            row["state"] = match (is("slow"), is("full")) {
                (_, true) => "full",
                (true, false) => "slow",
                (false, false) => "ready",
            }
            .into();
            rows.push(row);
        }
    }
    rows.into()
}

/// Writes a position as the flags with which `history` reads on after it.
fn position(position: &Value, out: &mut impl Write) -> io::Result<()> {
    let (epoch, offset) = (shown(&position["epoch"]), &position["offset"]);
    writeln!(out, "position: --epoch {epoch} --offset {offset}")
}

/// Writes a list of objects as a table, with these members as columns.
fn table(list: &Value, columns: &[(&str, &str)], out: &mut impl Write) -> io::Result<()> {
    let heads = columns.iter().map(|(_, head)| (*head).to_owned()).collect();
    let rows = list.as_array().into_iter().flatten();
    let rows = rows.map(|row| columns.iter().map(|(name, _)| shown(&row[*name])).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Says how to get the next page.
fn next(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    match answer["next"].as_str() {
        Some(next) => writeln!(out, "more: --after {}", quoted(next)),
        None => Ok(()),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => quoted(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A text as it is, or as JSON if a terminal or a reader could take it for something else.
fn quoted(text: &str) -> String {
    let is_plain =
        |character: char| !character.is_whitespace() && !character.is_control() && character != '"';
    if !text.is_empty() && text != "-" && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
