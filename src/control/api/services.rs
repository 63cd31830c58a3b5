//! Lists services.

use std::borrow::Cow;

use axum::http::Uri;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::parameters::Parameters;
use super::{Caller, page};
use crate::handle::{Handle, Page, ServiceInfo, ServiceMember};

/// A question for services.
#[derive(Debug)]
pub(super) struct ListServices {
    after: Option<String>,
    limit: usize,
}

impl ListServices {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<ListServices, ApiError> {
        let parameters = Parameters::read(uri, &["after", "limit"])?;
        Ok(ListServices {
            after: parameters.text("after")?.map(str::to_owned),
            limit: caller.page_size(&parameters)?,
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let Page { items, next } = handle.services(self.after.as_deref(), self.limit).await?;
        Ok(page("services", items.iter().map(shown).collect(), next))
    }
}

fn shown(service: &ServiceInfo) -> Value {
    let members: Vec<Value> = service.members.iter().map(member_shown).collect();
    json!({ "pattern": service.pattern, "waiting": service.waiting, "members": members })
}

fn member_shown(member: &ServiceMember) -> Value {
    let mut shown = Map::new();
    shown.insert("connection".to_owned(), json!(member.connection.to_string()));
    shown.insert("protocol".to_owned(), json!(member.protocol.name()));
    if let Some(user) = &member.user {
        shown.insert("user".to_owned(), json!(user));
    }
    shown.insert("core".to_owned(), json!(member.core));
    shown.insert("weight".to_owned(), json!(member.weight));
    shown.insert("window".to_owned(), json!(member.window));
    shown.insert("in_flight".to_owned(), json!(member.in_flight));
    shown.insert("slow".to_owned(), json!(member.is_slow));
    shown.insert("full".to_owned(), json!(member.is_full));
    if let Some(meta) = member
        .meta
        .as_deref()
        .and_then(|meta| serde_json::from_str(meta).ok())
    {
        shown.insert("meta".to_owned(), meta);
    }
    Value::Object(shown)
}
