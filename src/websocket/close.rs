//! The payload of a close frame: a code and a reason.
//!
//! The server answers a client's close frame with the same code and reason, or without both if the client's frame has
//! none, as the reference's engine does. `cores` decides how a connection goes on before and after its close frame.
//! RFC 6455 sections 5.5.1 and 7.4.

use super::frame::{self, CONTROL_PAYLOAD_BYTES_MAX, OpCode};
use crate::decision::{CloseCode, CloseReason};

/// Longest reason in bytes: the payload of a control frame without the two bytes of the code.
pub const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// The contents of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// The code; a frame without one has no payload.
    pub code: Option<CloseCode>,
    /// The reason; empty without a code.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the payload of a close frame.
    ///
    /// # Errors
    /// `ProtocolError` if the code is only one byte long or may not be sent, then `InvalidUtf8` for the reason.
    pub fn parse(payload: &'a [u8]) -> Result<CloseFrame<'a>, CloseReason> {
        if payload.is_empty() {
            return Ok(CloseFrame {
                code: None,
                reason: "",
            });
        }
        let (&code, reason) = payload.split_first_chunk().ok_or(CloseReason::ProtocolError)?;
        let code = CloseCode::new(u16::from_be_bytes(code)).ok_or(CloseReason::ProtocolError)?;
        let reason = std::str::from_utf8(reason).map_err(|_| CloseReason::InvalidUtf8)?;
        Ok(CloseFrame {
            code: Some(code),
            reason,
        })
    }

    /// Appends the whole frame, as a server sends it. A reason over [`REASON_BYTES_MAX`] is cut before the first
    /// character that does not fit. (The reference throws an exception then. Here, a reason of the application that is
    /// too long must not keep a connection open.)
    pub fn write(&self, out: &mut Vec<u8>) {
        let Some(code) = self.code else {
            frame::write_header(out, OpCode::Close, 0);
            return;
        };
        let reason = &self.reason[..self.reason.floor_char_boundary(REASON_BYTES_MAX)];
        frame::write_header(out, OpCode::Close, 2 + reason.len());
        out.extend_from_slice(&code.as_u16().to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(payload: &[u8]) -> Result<Vec<u8>, CloseReason> {
        let mut out = Vec::new();
        CloseFrame::parse(payload)?.write(&mut out);
        Ok(out)
    }

    #[test]
    fn a_close_frame_is_echoed_with_code_and_reason() {
        assert_eq!(echo(b""), Ok(b"\x88\x00".to_vec()));
        assert_eq!(echo(b"\x03\xe8"), Ok(b"\x88\x02\x03\xe8".to_vec()));
        assert_eq!(echo(b"\x0f\xa0bye"), Ok(b"\x88\x05\x0f\xa0bye".to_vec()));
        let longest = [b"\x03\xe8", "x".repeat(REASON_BYTES_MAX).as_bytes()].concat();
        assert_eq!(echo(&longest), Ok([b"\x88\x7d", &longest[..]].concat()));
    }

    #[test]
    fn illegal_payloads_have_their_codes() {
        for (payload, expected) in [
            (&b"\x03"[..], CloseReason::ProtocolError),
            (b"\x00\x00", CloseReason::ProtocolError),
            (b"\x03\xed", CloseReason::ProtocolError),
            (b"\x13\x88", CloseReason::ProtocolError),
            (b"\x03\xe8\xff", CloseReason::InvalidUtf8),
            (b"\x03\xe8\xc3", CloseReason::InvalidUtf8),
            // The code is checked before the reason.
            (b"\x03\xed\xff", CloseReason::ProtocolError),
        ] {
            assert_eq!(echo(payload), Err(expected), "{payload:?}");
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_characters() {
        for (reason, kept) in [
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            (format!("{}é", "x".repeat(121)), 123),
            (format!("{}é", "x".repeat(122)), 122),
        ] {
            let mut out = Vec::new();
            let code = CloseCode::new(1000);
            CloseFrame {
                code,
                reason: &reason,
            }
            .write(&mut out);
            assert_eq!(out.len(), 4 + kept);
            assert_eq!(
                CloseFrame::parse(&out[2..]),
                Ok(CloseFrame {
                    code,
                    reason: &reason[..kept]
                })
            );
        }
    }
}
