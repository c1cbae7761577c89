//! Where a stream of bytes stands within its WebSocket frames. Pure.

/// A header cannot be longer: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES: usize = 14;

/// Most bytes in one piece: a large frame is let through little by little.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// The place between two bytes of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    header: [u8; HEADER_BYTES],
    /// Bytes of the current header so far.
    header_bytes: usize,
    /// Payload still to come before the next header.
    payload: u64,
}

/// Bytes that belong to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many; at least one.
    pub(super) bytes: usize,
    /// The frame's header is complete with them.
    pub(super) has_header: bool,
    /// The frame is complete with them.
    pub(super) is_last: bool,
}

/// A frame was announced that is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBig;

impl Position {
    /// Reads on, at most to the end of the current frame. `bytes` are those that follow, not empty.
    pub(super) fn advance(&mut self, bytes: &[u8], limit: u64) -> Result<Piece, TooBig> {
        let (mut taken, mut has_header) = (0, false);
        if self.payload == 0 {
            for byte in bytes {
                taken += 1;
                if let Some(length) = self.push(*byte) {
                    if length > limit {
                        return Err(TooBig);
                    }
                    (self.header_bytes, self.payload, has_header) = (0, length, true);
                    break;
                }
            }
        }
        let is_in_header = self.header_bytes > 0;
        let payload = usize::try_from(self.payload).unwrap_or(usize::MAX);
        let payload = payload.min(bytes.len() - taken).min(PIECE_BYTES);
        self.payload -= payload as u64;
        Ok(Piece {
            bytes: taken + payload,
            has_header,
            is_last: self.payload == 0 && !is_in_header,
        })
    }

    /// Adds a byte of the header; the payload's length, once the header is complete.
    fn push(&mut self, byte: u8) -> Option<u64> {
        *self.header.get_mut(self.header_bytes)? = byte;
        self.header_bytes += 1;
        let header = self.header.get(..self.header_bytes)?;
        let second = *header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let length = match second & 0x7f {
            126 => header.get(2..4)?,
            127 => header.get(2..10)?,
            _ => &[],
        };
        if header.len() < 2 + length.len() + mask {
            return None;
        }
        let short = if length.is_empty() { second & 0x7f } else { 0 };
        let long = |sum, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(length.iter().fold(u64::from(short), long))
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::decimal_bitwise_operands,
    reason = "lengths are checked by the arms, and RFC 6455 writes 126 and 127 in decimal"
)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of a frame.
    pub(in crate::realtime::guard) fn header(length: u64, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        if masked {
            bytes.extend([0xff; 4]);
        }
        bytes
    }

    #[test]
    fn a_frame_is_refused_by_its_header_alone() {
        for masked in [true, false] {
            let header = header(16 << 30, masked);
            assert_eq!(Position::default().advance(&header, 65_536), Err(TooBig));
            let mut position = Position::default();
            let (last, first) = header.split_last().unwrap();
            let piece = position.advance(first, 65_536).unwrap();
            assert!(!piece.has_header && !piece.is_last && piece.bytes == first.len());
            assert_eq!(position.advance(&[*last], 65_536), Err(TooBig));
        }
    }

    proptest! {
        /// Whatever the frames and however the stream is cut: every frame within the limit is found
        /// exactly once, no piece reaches beyond its frame, and the first one over the limit is
        /// refused before any of its payload is let through.
        #[test]
        fn frames_are_followed_however_the_stream_is_cut(
            lengths in prop::collection::vec((0u64..70_000, any::<bool>()), 1..6),
            cuts in prop::collection::vec(1usize..5_000, 1..20),
            limit in 0u64..70_000,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (length, masked) in &lengths {
                bytes.extend(header(*length, *masked));
                bytes.extend(vec![0x81; *length as usize]);
                ends.push(bytes.len());
            }
            let mut position = Position::default();
            let (mut rest, mut read, mut headers, mut n) = (&bytes[..], 0, 0, 0);
            let mut found = Vec::new();
            let mut refused = false;
            while !refused && !rest.is_empty() {
                let mut chunk = &rest[..cuts[n % cuts.len()].min(rest.len())];
                rest = &rest[chunk.len()..];
                while !chunk.is_empty() {
                    let Ok(piece) = position.advance(chunk, limit) else {
                        refused = true;
                        break;
                    };
                    prop_assert!(piece.bytes > 0 && piece.bytes <= PIECE_BYTES + HEADER_BYTES);
                    read += piece.bytes;
                    chunk = &chunk[piece.bytes..];
                    headers += usize::from(piece.has_header);
                    if piece.is_last {
                        found.push(read);
                    }
                }
                n += 1;
            }
            let admitted = lengths.iter().take_while(|(length, _)| *length <= limit).count();
            prop_assert_eq!(refused, admitted < lengths.len());
            prop_assert_eq!(headers, admitted);
            prop_assert_eq!(&found[..], &ends[..admitted]);
        }
    }
}
