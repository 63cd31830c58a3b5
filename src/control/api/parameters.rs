//! The parameters of a request: the query of its URL.

use axum::extract::Query;
use axum::http::Uri;

use super::error::{ApiError, ErrorCode};

/// The parameters, decoded.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// It is no query, or has a parameter that is not among the known ones.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Parameters, ApiError> {
        let Query(all) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| wrong(format!("the query of the URL is wrong: {error}")))?;
        match all.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Parameters(all)),
            Some((name, _)) => Err(wrong(format!(
                "the parameter {name:?} is not known; this request has {}",
                known.join(", ")
            ))),
        }
    }

    /// All values of a parameter that may occur several times.
    pub(super) fn all<'a, 'b>(&'a self, name: &'b str) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        let values = self.0.iter().filter(move |(found, _)| found == name);
        values.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may be absent.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(wrong(format!("the parameter {name} is there twice"))),
        }
    }

    /// The value of a parameter that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name)?
            .ok_or_else(|| wrong(format!("the parameter {name} is missing")))
    }

    /// A whole number within these bounds.
    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| {
            let number = text.parse().ok();
            number
                .filter(|number| (min..=max).contains(number))
                .ok_or_else(|| {
                    wrong(format!(
                        "{name}: found {text:?}, expected a whole number from {min} to {max}"
                    ))
                })
        };
        self.text(name)?.map(parse).transpose()
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameter, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, ApiError> {
        let uri: Uri = format!("/api/v1/x?{query}").parse().unwrap();
        Parameters::read(&uri, &["channel", "limit"])
    }

    #[test]
    fn names_are_decoded_and_each_fault_is_named() {
        let parameters = read("channel=a%2Fb+%C3%BC&limit=7").unwrap();
        assert_eq!(parameters.text("channel").unwrap(), Some("a/b ü"));
        assert_eq!(parameters.number("limit", 1, 7).unwrap(), Some(7));
        let parameters = read("channel=a&channel=&limit=8").unwrap();
        assert_eq!(parameters.all("channel").collect::<Vec<_>>(), ["a", ""]);
        let message = |error: ApiError| error.body()["error"]["message"].to_string();
        assert!(message(parameters.text("channel").unwrap_err()).contains("channel is there twice"));
        let fault = message(parameters.number("limit", 1, 7).unwrap_err());
        assert!(fault.contains("expected a whole number from 1 to 7"), "{fault}");
        let parameters = read("").unwrap();
        assert_eq!(
            (parameters.text("channel"), parameters.number("limit", 1, 7)),
            (Ok(None), Ok(None))
        );
        let fault = message(read("chanel=a").unwrap_err());
        assert!(
            fault.contains("chanel") && fault.contains("this request has channel, limit"),
            "{fault}"
        );
    }
}
