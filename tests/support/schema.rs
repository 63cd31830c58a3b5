//! Checks a JSON value against a schema of JSON Schema 2020-12, as far as `openapi.json` uses it.
//!
//! A keyword that is not known here fails the test, so that no part of a schema is skipped in silence. A crate for this
//! would add thirty crates to the build of every test; `tests/openapi.sh` compares with the validator of Python.

use serde_json::Value;

/// The first difference between a value and a schema of the document.
pub(crate) fn difference(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    Checker { document }.check(schema, value, "$").err()
}

struct Checker<'a> {
    document: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let Some(members) = schema.as_object() else {
            return Err(format!("{place}: the schema {schema} is no object"));
        };
        for (keyword, wanted) in members {
            self.keyword(members, keyword, wanted, value, place)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        schema: &serde_json::Map<String, Value>,
        keyword: &str,
        wanted: &Value,
        value: &Value,
        place: &str,
    ) -> Result<(), String> {
        let fails = |is_right: bool| {
            if is_right {
                Ok(())
            } else {
                Err(format!("{place}: {value} against {keyword} {wanted}"))
            }
        };
        let length = value.as_str().map(|text| text.chars().count() as u64);
        match keyword {
            "description" | "title" => Ok(()),
            "$ref" => {
                let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                let schema = self.document.pointer(path);
                self.check(
                    schema.ok_or_else(|| format!("{wanted} is not there"))?,
                    value,
                    place,
                )
            }
            "type" if wanted.is_array() => {
                let types = wanted.as_array().unwrap().iter();
                let fits = |one: &Value| self.keyword(schema, keyword, one, value, place).is_ok();
                fails(types.filter(|one| fits(one)).count() > 0)
            }
            "type" => fails(match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "number" => value.is_number(),
                "integer" => value.is_u64() || value.is_i64(),
                other => return Err(format!("{place}: unknown type {other}")),
            }),
            "const" => fails(value == wanted),
            "enum" => fails(wanted.as_array().unwrap().contains(value)),
            "minimum" => fails(
                value
                    .as_f64()
                    .is_none_or(|number| number >= wanted.as_f64().unwrap()),
            ),
            "maximum" => fails(
                value
                    .as_f64()
                    .is_none_or(|number| number <= wanted.as_f64().unwrap()),
            ),
            "minLength" => fails(length.is_none_or(|length| length >= wanted.as_u64().unwrap())),
            "maxLength" => fails(length.is_none_or(|length| length <= wanted.as_u64().unwrap())),
            "minItems" => fails(
                value
                    .as_array()
                    .is_none_or(|list| list.len() as u64 >= wanted.as_u64().unwrap()),
            ),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(wanted, item, &format!("{place}[{index}]"))?;
                }
                Ok(())
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        self.check(schema, member, &format!("{place}.{name}"))?;
                    }
                }
                Ok(())
            }
            "required" => {
                let mut names = wanted.as_array().unwrap().iter();
                fails(!value.is_object() || names.all(|name| value.get(name.as_str().unwrap()).is_some()))
            }
            "additionalProperties" => {
                assert_eq!(*wanted, Value::Bool(false), "{place}: only false is known here");
                let known = schema.get("properties").and_then(Value::as_object);
                let mut members = value.as_object().into_iter().flatten();
                fails(members.all(|(name, _)| known.is_some_and(|known| known.contains_key(name))))
            }
            "allOf" => {
                let mut schemas = wanted.as_array().unwrap().iter();
                schemas.try_for_each(|schema| self.check(schema, value, place))
            }
            "oneOf" => {
                let schemas = wanted.as_array().unwrap().iter();
                let matching = schemas.filter(|schema| self.check(schema, value, place).is_ok());
                fails(matching.count() == 1)
            }
            other => Err(format!("{place}: the keyword {other} is not known here")),
        }
    }
}
