//! The settings and pages with which a core answers HTTP requests, before there is a session.

use std::sync::Arc;
use std::time::Duration;

use crate::http::login_pages::LoginPages;
use crate::http::site::Site;

use crate::cores::CoreSettings;

/// The pages of one core, and the settings for upgrades.
#[derive(Debug)]
pub(in crate::cores) struct Requests {
    site: Arc<Site>,
    /// Whether offers of compression are accepted.
    compression: bool,
    login_pages: LoginPages,
    /// The name of the cookie that holds a user's token.
    cookie: String,
    /// How long a token is valid, and its cookie is kept.
    expiry: Duration,
    /// The path of the endpoint for MQTT.
    mqtt_path: String,
}

impl Requests {
    pub(in crate::cores) fn new(settings: &CoreSettings) -> Requests {
        let logins = &settings.session.common.logins;
        Requests {
            site: Arc::clone(&settings.site),
            compression: settings.compression,
            login_pages: LoginPages::new(&settings.login_path, logins.fields.clone(), logins.body_bytes_max),
            cookie: settings.login_cookie.clone(),
            expiry: settings.session.common.auth_default_expiry,
            mqtt_path: settings.mqtt_path.clone(),
        }
    }

    /// The pages that need no login.
    pub(in crate::cores) fn site(&self) -> &Site {
        &self.site
    }

    /// The pages for users.
    pub(in crate::cores) fn login_pages(&self) -> &LoginPages {
        &self.login_pages
    }

    /// The path of the endpoint for MQTT.
    pub(in crate::cores) fn mqtt_path(&self) -> &str {
        &self.mqtt_path
    }

    pub(in crate::cores) fn accepts_compression(&self) -> bool {
        self.compression
    }

    pub(in crate::cores) fn cookie(&self) -> &str {
        &self.cookie
    }

    pub(in crate::cores) fn expiry(&self) -> Duration {
        self.expiry
    }
}
