//! A frame on its way to devices, with its JSON: encoded once, shared by all that get it.

use std::sync::Arc;

use bytestring::ByteString;
use hubbub_protocol::ServerFrame;

/// A frame and its JSON. Clones share both.
#[derive(Clone, Debug)]
pub struct EncodedFrame(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    frame: ServerFrame,
    json: ByteString,
}

impl EncodedFrame {
    /// Encodes a frame.
    pub fn new(frame: ServerFrame) -> Self {
        // Boxed, because queues count bytes and a string keeps up to twice as many.
        let json = ByteString::from(frame.encode().into_boxed_str());
        Self(Arc::new(Encoded { frame, json }))
    }

    /// The frame.
    pub fn frame(&self) -> &ServerFrame {
        &self.0.frame
    }

    /// The frame as one JSON object.
    pub fn json(&self) -> &ByteString {
        &self.0.json
    }

    /// Bytes of its JSON.
    pub fn json_bytes(&self) -> usize {
        self.0.json.len()
    }

    /// Bytes it holds in memory, roughly: its text is there twice.
    pub fn held_bytes(&self) -> usize {
        2 * self.0.json.len()
    }
}
