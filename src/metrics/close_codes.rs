//! The table of `docs/close-codes.md`, made from the rows of [`CloseReason`].

use crate::decision::CloseReason;

/// The table of close codes in Markdown: by code, reasons without a close frame last.
pub fn markdown() -> String {
    let mut reasons = CloseReason::ALL;
    reasons.sort_by_key(|reason| match reason.code() {
        Some(_) if matches!(reason, CloseReason::Application(_)) => (1, 0),
        Some(code) => (0, usize::from(code.as_u16())),
        None => (2, reason.index()),
    });
    let mut table =
        "| code | MQTT 5 | `reason` in metrics | whose doing | what happened | what to do |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for reason in reasons {
        let [what, advice] = reason.in_words();
        table.push_str(&format!(
            "| {} | {} | `{}` | {} | {what} | {advice} |\n",
            shown_code(reason),
            reason
                .reason_code()
                .map_or_else(|| "none".to_owned(), |code| format!("{code:#04x}")),
            reason.label(),
            reason.blame().label(),
        ));
    }
    table
}

fn shown_code(reason: CloseReason) -> String {
    let code = reason
        .code()
        .map_or_else(|| "none".to_owned(), |code| code.as_u16().to_string());
    if matches!(reason, CloseReason::Application(_)) {
        return "the application's".to_owned();
    }
    if matches!(reason, CloseReason::HandshakeRefused(_)) {
        return format!("{code}, or the application's");
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_line() {
        let table = markdown();
        for label in CloseReason::LABELS {
            assert_eq!(table.matches(&format!("| `{label}` |")).count(), 1, "{label}");
        }
        assert!(
            table
                .lines()
                .all(|line| line.matches(" | ").count() == 5 || line.starts_with("|---"))
        );
    }
}
