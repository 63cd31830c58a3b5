//! Lists channels with subscribers.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::Uri;
use serde_json::json;

use super::error::ApiError;
use super::parameters::Parameters;
use super::{Caller, page};
use crate::auth::api_keys::ApiKey;
use crate::handle::{Handle, Page};

/// A question for channels.
#[derive(Debug)]
pub(super) struct ListChannels {
    prefix: String,
    after: Option<String>,
    limit: usize,
    /// Only channels that the key names are shown.
    key: Arc<ApiKey>,
}

impl ListChannels {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<ListChannels, ApiError> {
        let parameters = Parameters::read(uri, &["prefix", "after", "limit"])?;
        Ok(ListChannels {
            prefix: parameters.text("prefix")?.unwrap_or_default().to_owned(),
            after: parameters.text("after")?.map(str::to_owned),
            limit: caller.page_size(&parameters)?,
            key: Arc::clone(caller.key),
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.prefix)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let Page { items, next } = handle
            .channels(&self.prefix, self.after.as_deref(), self.limit)
            .await?;
        let channels = items
            .into_iter()
            .filter(|channel| self.key.names_channel(&channel.name))
            .map(|channel| json!({ "channel": channel.name, "subscribers": channel.subscribers }))
            .collect();
        Ok(page("channels", channels, next))
    }
}
