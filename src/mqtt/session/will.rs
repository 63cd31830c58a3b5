//! The will in CONNECT: section 3.1.2.5. The session checks it at CONNECT as it would check a publication,
//! since the client is gone when the will is published. From then on it is kept with the session
//! (`mqtt/sessions/will.rs`).

use super::publish::passed_on;
use super::{Denied, Session, refused};
use crate::app::App;
use crate::decision::Limit;
use crate::mqtt::ReasonCode;
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::Connect;
use crate::mqtt::properties::Property;
use crate::mqtt::publication::takes_payload;
use crate::mqtt::sessions::Will;
use crate::session;

impl Session {
    /// The will in CONNECT, if there is one. `question` is the number of the question to the application about it.
    pub(super) fn will_of<A: App>(
        &mut self,
        connect: &Connect<'_>,
        question: usize,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Option<Box<Will>>, Denied> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        if !env.common.settings.wills {
            return refused(
                ReasonCode::QuotaExceeded,
                "this server keeps no wills (wills_bytes_max)",
            );
        }
        if will.retain && !env.settings.retain_available {
            return refused(
                ReasonCode::RetainNotSupported,
                "this server retains no publications",
            );
        }
        let properties = will.properties;
        let bytes = will.topic.len() + will.payload.len() + passed_on(properties).len();
        if bytes > env.common.settings.will_bytes_max as usize {
            env.common.scratch.hit(Limit::WillBytes);
            return refused(
                ReasonCode::QuotaExceeded,
                "the will is longer than the server allows (will_bytes_max)",
            );
        }
        let is_utf8 = properties.number(Property::PayloadFormatIndicator) == Some(1);
        if is_utf8 && env.settings.checks_payload_format && str::from_utf8(will.payload).is_err() {
            return refused(
                ReasonCode::PayloadFormatInvalid,
                "the payload of the will is not UTF-8",
            );
        }
        let rule = session::mqtt_marks(
            &env.common.policy.channels,
            &mut env.common.scratch.channels,
            will.topic.as_bytes(),
            env.settings.payload,
        )
        .payload;
        if !takes_payload(rule, will.payload) {
            return refused(
                ReasonCode::PayloadFormatInvalid,
                "the payload of the will is not JSON, which publications to this topic must be",
            );
        }
        let payload = self.may_publish(question, will.topic.as_bytes(), will.payload, env)?;
        let delay_s = properties.number(Property::WillDelayInterval).unwrap_or(0);
        let delay_s_max = env.common.settings.will_delay_max.as_secs();
        let delay_s_max = u32::try_from(delay_s_max).unwrap_or(u32::MAX);
        if delay_s > delay_s_max {
            env.common.scratch.hit(Limit::WillDelay);
        }
        Ok(Some(Box::new(Will {
            topic: will.topic.as_bytes().into(),
            payload: payload.bytes(will.payload, env).into(),
            properties: passed_on(properties).into(),
            qos: will.qos as u8,
            retain: will.retain,
            is_utf8,
            expiry_s: properties.number(Property::MessageExpiryInterval),
            delay_s: delay_s.min(delay_s_max),
            claims: self.claims.as_deref().map(|claims| claims.json().into()),
        })))
    }
}
