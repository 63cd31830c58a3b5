//! The forms of a publication: subscribers have different protocols and options, and so get different frames.
//!
//! ```text
//!   ring: frame of the publisher's protocol ──► columns, by form:  as published | made here, once | not made
//!                                                                       └──────── each subscriber takes its form's
//! ```
//! A publication lies in the ring as the publisher's core encoded it. A core makes each other form when the
//! publication first meets a subscriber of this form, and uses it for all such subscribers. This includes
//! subscribers that the publication meets in later turns, since only the publication at the front of the ring
//! is under way. A core without subscribers of a form does nothing for it.
//!
//! To add a form: a variant of [`Form`], its place in [`Form::index`], and a function that encodes it, called by
//! [`Forms::make`].
//!
//! Replies have no columns: they are encoded one by one, by [`write_reply`].
//!
//! Limits: `compression_bytes_min`; the bytes of the publications that are encoded count against the copies
//! of a turn.

use crate::broker::{Origin, Publication};
use crate::protocols::{Content, Framing, MinBin};
use crate::websocket::deflate::{Compression, Deflater, Work};
use crate::websocket::frame::{self, OpCode};

/// The form in which a connection gets publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Form {
    /// A WebSocket text frame with a `#publish` packet, compressed as the client has agreed to.
    SocketCluster(Compression),
    /// A WebSocket binary frame with the packet as the codec `min-bin` writes it.
    MinBin,
}

impl Form {
    /// How many forms there are.
    pub(in crate::cores) const COUNT: usize = Compression::COUNT + 1;

    /// The form for a connection with this framing.
    #[inline]
    pub(in crate::cores) const fn of(framing: Framing) -> Form {
        match framing {
            Framing::WebSocket(compression) => Form::SocketCluster(compression),
            Framing::MinBin => Form::MinBin,
            // Publications for MQTT connections are made elsewhere (`packets.rs`).
            Framing::Mqtt | Framing::MqttOverWebSocket => Form::SocketCluster(Compression::Off),
        }
    }

    /// The column of this form in tables.
    #[inline]
    pub(in crate::cores) const fn index(self) -> usize {
        match self {
            Form::SocketCluster(compression) => compression.index(),
            Form::MinBin => Compression::COUNT,
        }
    }
}

/// The forms of the publication under way on a core, and the encoders that make them.
#[derive(Debug)]
pub(in crate::cores) struct Forms {
    deflater: Deflater,
    packer: Packer,
    /// Whether clients of any port have the codec `min-bin`.
    has_min_bin: bool,
    columns: [Column; Form::COUNT],
    /// Bytes of publications that were encoded in other forms since the last [`Forms::take_encoded_bytes`].
    encoded_bytes: usize,
}

/// Writes frames of the codec `min-bin`.
#[derive(Debug, Default)]
struct Packer {
    codec: MinBin,
    /// The packet of the frame that is being written.
    packet: Vec<u8>,
}

/// The publication under way in one form.
#[derive(Debug, Default)]
struct Column {
    state: State,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The publication has met no subscriber of this form yet.
    #[default]
    NotMade,
    /// The frame is sent as it was published.
    AsPublished,
    /// The column has a frame of its own.
    Made,
}

impl Forms {
    /// Forms for a core that compresses messages of `compression_bytes_min` and more. `has_min_bin` says
    /// whether clients of any port have that codec.
    pub(in crate::cores) fn new(compression_bytes_min: u32, has_min_bin: bool) -> Forms {
        Forms {
            deflater: Deflater::new(compression_bytes_min as usize),
            packer: Packer::default(),
            has_min_bin,
            columns: Default::default(),
            encoded_bytes: 0,
        }
    }

    /// Prepares for the next publication. Frees the memory of large frames.
    pub(in crate::cores) fn end_publication(&mut self) {
        for column in &mut self.columns {
            column.state = State::NotMade;
            if column.frame.capacity() > KEPT_BYTES_MAX {
                column.frame = Vec::new();
            }
        }
        if self.has_min_bin {
            self.packer.shrink();
        }
    }

    /// The frames of a publication, by [`Form::index`], for subscribers of the forms in `wanted`. The frame
    /// of a form that is not wanted is the published one.
    pub(in crate::cores) fn frames<'f>(
        &'f mut self,
        publication: Publication<'f>,
        wanted: impl Iterator<Item = Form>,
    ) -> [&'f [u8]; Form::COUNT] {
        let published = publication.frame();
        // Without that codec, compression is the only way to another form, and it leaves short frames as they
        // are.
        if !self.has_min_bin && !self.deflater.takes(published.len()) {
            return [published; Form::COUNT];
        }
        for form in wanted {
            if self.columns[form.index()].state == State::NotMade {
                self.make(form, publication);
            }
        }
        self.columns.each_ref().map(|column| match column.state {
            State::NotMade | State::AsPublished => published,
            State::Made => &column.frame,
        })
    }

    fn make(&mut self, form: Form, publication: Publication<'_>) {
        let column = &mut self.columns[form.index()];
        column.frame.clear();
        column.state = match form {
            Form::SocketCluster(compression) => {
                write_socketcluster(&mut self.deflater, compression, publication, &mut column.frame)
            }
            Form::MinBin => write_min_bin(&mut self.packer, publication, &mut column.frame),
        };
        if column.state == State::Made {
            self.encoded_bytes += publication.frame().len();
        }
    }

    /// Bytes of publications that were encoded in other forms since the last call.
    pub(in crate::cores) fn take_encoded_bytes(&mut self) -> usize {
        std::mem::take(&mut self.encoded_bytes)
    }

    /// The bytes that were compressed since the last call.
    pub(in crate::cores) fn take_compression_work(&mut self) -> Work {
        self.deflater.take_work()
    }
}

/// Writes a publication for SocketCluster clients with this compression, unless they get it as it was
/// published.
fn write_socketcluster(
    deflater: &mut Deflater,
    compression: Compression,
    publication: Publication<'_>,
    out: &mut Vec<u8>,
) -> State {
    let parts = match publication.origin() {
        Origin::SocketCluster => frame::parts(publication.frame()),
        // Delivery translates such a publication first (`delivery/translation.rs`).
        Origin::Mqtt => None,
    };
    match parts {
        Some((opcode, message)) if compression.is_on() && deflater.takes(message.len()) => {
            deflater.write(out, compression, opcode, message);
            State::Made
        }
        Some(_) | None => State::AsPublished,
    }
}

/// Writes a publication for clients with the codec `min-bin`.
fn write_min_bin(packer: &mut Packer, publication: Publication<'_>, out: &mut Vec<u8>) -> State {
    let parts = match publication.origin() {
        Origin::SocketCluster => frame::parts(publication.frame()),
        // As above.
        Origin::Mqtt => None,
    };
    match parts {
        Some((opcode, message)) => {
            packer.write(opcode, message, out);
            State::Made
        }
        None => State::AsPublished,
    }
}

impl Packer {
    /// Appends a message as a whole frame: in the codec if it is a packet, else as it is.
    fn write(&mut self, opcode: OpCode, message: &[u8], out: &mut Vec<u8>) {
        match (opcode, str::from_utf8(message)) {
            (OpCode::Text, Ok(text)) if text.starts_with(['{', '[']) => {
                self.packet.clear();
                self.codec.encode(text, &mut self.packet);
                frame::write(out, OpCode::Binary, &self.packet);
            }
            // Pings and pongs.
            _ => frame::write(out, opcode, message),
        }
    }

    /// Frees the memory of large messages.
    fn shrink(&mut self) {
        self.codec.shrink();
        if self.packet.capacity() > KEPT_BYTES_MAX {
            self.packet = Vec::new();
        }
    }
}

/// Appends a reply, a whole frame: compressed if the connection has agreed to it and the message is long enough.
#[inline]
pub(in crate::cores) fn write_reply(
    forms: Option<&mut Forms>,
    framing: Framing,
    out: &mut Vec<u8>,
    content: Content,
    payload: &[u8],
) {
    let (compression, opcode) = match framing {
        Framing::WebSocket(compression) => (compression, content.opcode()),
        Framing::MinBin => return write_packed(forms, content.opcode(), payload, out),
        Framing::Mqtt => return out.extend_from_slice(payload),
        Framing::MqttOverWebSocket if content.is_message() => (Compression::Off, OpCode::Binary),
        Framing::MqttOverWebSocket => (Compression::Off, content.opcode()),
    };
    match forms {
        Some(forms) if compression.is_on() && content.is_message() => {
            forms.deflater.write(out, compression, opcode, payload);
        }
        // One call, so that it is inlined here.
        Some(_) | None => frame::write(out, opcode, payload),
    }
}

/// Appends a message for a client with the codec `min-bin`, as a whole frame. A core with such clients has
/// forms.
#[cold]
fn write_packed(forms: Option<&mut Forms>, opcode: OpCode, message: &[u8], out: &mut Vec<u8>) {
    match forms {
        Some(forms) => {
            forms.packer.write(opcode, message, out);
            forms.packer.shrink();
        }
        None => frame::write(out, opcode, message),
    }
}

/// Appends publications, whole frames one behind the other: in the form of the connection.
pub(in crate::cores) fn write_frames(
    forms: Option<&mut Forms>,
    framing: Framing,
    out: &mut Vec<u8>,
    frames: &[u8],
) {
    let form = Form::of(framing);
    let Some(forms) = forms.filter(|_| form != Form::SocketCluster(Compression::Off)) else {
        out.extend_from_slice(frames);
        return;
    };
    let mut rest = frames;
    while let Some(length) = frame::next_frame_len(rest) {
        let (frame, behind) = rest.split_at(length);
        match frame::parts(frame) {
            Some((opcode, message)) => match form {
                Form::SocketCluster(compression) => {
                    forms.deflater.write(out, compression, opcode, message);
                }
                Form::MinBin => forms.packer.write(opcode, message, out),
            },
            None => out.extend_from_slice(frame),
        }
        rest = behind;
    }
}

/// Appends the frame of a SocketCluster publication, whose data has so many bytes, with other data.
pub(in crate::cores) fn write_replaced(
    published: &[u8],
    payload_bytes: usize,
    json: &str,
    out: &mut Vec<u8>,
) {
    let Some((_, message)) = frame::parts(published) else {
        return;
    };
    let behind = message.len().saturating_sub(END.len());
    let before = &message[..behind.saturating_sub(payload_bytes)];
    // Without data, the packet has no member for it.
    let member = if payload_bytes == 0 { MEMBER } else { "" };
    frame::write_header(
        out,
        OpCode::Text,
        before.len() + member.len() + json.len() + END.len(),
    );
    out.extend_from_slice(before);
    for part in [member, json, END] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The end of a `#publish` packet, behind its data (`broker/publication.rs`).
const END: &str = "}}";
const MEMBER: &str = ",\"data\":";
/// A column whose frame grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
pub(in crate::cores) mod tests {
    use super::*;
    use crate::broker::publication::{self, Facts, Kind, Marks, Sequence};

    /// The facts of a publication without marks.
    fn facts() -> Facts {
        Facts {
            at_ns: 0,
            kind: Kind::Json,
            origin: Origin::SocketCluster,
            payload_bytes: 0,
            marks: Marks {
                remembered: false,
                positioned: false,
            },
            retain: false,
        }
    }

    /// Calls `act` with a publication of this frame, as it would lie in the ring.
    pub(in crate::cores) fn with_publication<R>(frame: &[u8], act: impl FnOnce(Publication<'_>) -> R) -> R {
        let mut buffer = Vec::new();
        publication::write(&mut buffer, facts(), b"c", &[frame]);
        act(Publication::new(Sequence(1), &buffer))
    }

    #[test]
    fn other_data_takes_the_place_of_the_data_alone() {
        let position = r#""position":{"epoch":"k3j9x0ab","offset":123             }                "#;
        for (before, data, instead, after) in [
            (
                r#""channel":"c","data":"#,
                "[1,\"}}\"]",
                "{}",
                r#""channel":"c","data":{}"#.to_owned(),
            ),
            (
                r#""channel":"c""#,
                "",
                "7",
                r#""channel":"c","data":7"#.to_owned(),
            ),
            (
                &format!(r#""channel":"c",{position},"data":"#),
                "null",
                "\"x\"",
                format!(r#""channel":"c",{position},"data":"x""#),
            ),
        ] {
            let packet = |members: &str| format!(r##"{{"event":"#publish","data":{{{members}}}}}"##);
            let (mut frame, mut expected) = (Vec::new(), Vec::new());
            frame::write(
                &mut frame,
                OpCode::Text,
                packet(&format!("{before}{data}")).as_bytes(),
            );
            frame::write(&mut expected, OpCode::Text, packet(&after).as_bytes());
            let facts = Facts {
                payload_bytes: u32::try_from(data.len()).unwrap(),
                ..facts()
            };
            let (mut buffer, mut replaced) = (Vec::new(), Vec::new());
            publication::write(&mut buffer, facts, b"c", &[&frame]);
            let publication = Publication::new(Sequence(1), &buffer);
            let payload_bytes = publication.payload().len();
            write_replaced(publication.frame(), payload_bytes, instead, &mut replaced);
            assert_eq!(String::from_utf8(replaced), String::from_utf8(expected));
        }
    }

    const PLAIN: Form = Form::SocketCluster(Compression::Off);
    const LARGE: Form = Form::SocketCluster(Compression::Large);
    const SMALL: Form = Form::SocketCluster(Compression::Small);

    fn frames(forms: &mut Forms, frame: &[u8], wanted: &[Form]) -> [Vec<u8>; Form::COUNT] {
        with_publication(frame, |publication| {
            let frames = forms.frames(publication, wanted.iter().copied());
            frames.map(<[u8]>::to_vec)
        })
    }

    #[test]
    fn a_form_is_made_once_when_a_subscriber_needs_it_and_not_before() {
        let mut forms = Forms::new(100, false);
        let mut plain = Vec::new();
        frame::write(&mut plain, OpCode::Text, &[b'a'; 2000]);
        forms.end_publication();
        for (subscribers, are_short, work) in [
            (&[PLAIN, PLAIN][..], [false, false], 0),
            (&[PLAIN, LARGE, LARGE], [true, false], 1),
            (&[SMALL, LARGE], [true, true], 1),
            (&[LARGE, SMALL, PLAIN], [true, true], 0),
        ] {
            let frames = frames(&mut forms, &plain, subscribers);
            assert_eq!(frames[PLAIN.index()], plain);
            assert_eq!(
                [LARGE, SMALL].map(|form| frames[form.index()].len() < 100),
                are_short
            );
            assert_eq!(forms.take_compression_work().messages, work, "{subscribers:?}");
        }
        assert_eq!(forms.take_encoded_bytes(), 2 * plain.len());
        forms.end_publication();
        plain[500] = b'b';
        let first = frames(&mut forms, &plain, &[LARGE]);
        forms.end_publication();
        plain[500] = b'c';
        assert_ne!(
            first[LARGE.index()],
            frames(&mut forms, &plain, &[LARGE])[LARGE.index()]
        );
    }

    #[test]
    fn a_short_message_is_sent_as_it_was_published() {
        let mut forms = Forms::new(100, false);
        for (message, is_compressed) in [
            (&[b'a'; 99][..], false),
            (&[b'a'; 97], false),
            (&[], false),
            (&[b'a'; 100], true),
        ] {
            let mut plain = Vec::new();
            frame::write(&mut plain, OpCode::Text, message);
            forms.end_publication();
            let frames = frames(&mut forms, &plain, &[LARGE, SMALL]);
            for form in [LARGE, SMALL] {
                assert_eq!(frames[form.index()] != plain, is_compressed);
            }
        }
        assert_eq!(forms.take_compression_work().messages, 2);
    }
}
