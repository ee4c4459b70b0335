//! Decodes LZ4's *legacy* frame format, which the kernel build uses for its payload.
//!
//! ```text
//! 02 21 4c 18 | length u32 LE | block (at most 8 MiB decoded) | length | block | ...
//! ```
//!
//! There is no length of the whole and no checksum: the caller says how long the result must be.

/// The first four bytes.
pub(crate) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// What one block decodes to at most, by the format's definition.
const BLOCK_MAX: usize = 8 << 20;

/// Why a frame could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lz4Error {
    /// It starts with other bytes.
    #[error("no LZ4 legacy frame (starts with {found:02x?})")]
    Magic { found: Vec<u8> },
    /// A length goes over the end of the input.
    #[error("block {block} is cut short")]
    CutShort { block: usize },
    /// The decoder refused a block.
    #[error("block {block} is damaged: {problem}")]
    Damaged { block: usize, problem: String },
    /// All blocks together have another length than announced.
    #[error("decodes to {found} bytes instead of {expected}")]
    Length { expected: usize, found: usize },
}

/// Decodes a whole frame of which the decoded length is known.
///
/// # Errors
///
/// If the frame isn't one, is damaged, or has another length.
pub(crate) fn decode_legacy(frame: &[u8], expected: usize) -> Result<Vec<u8>, Lz4Error> {
    let Some(mut rest) = frame.strip_prefix(&MAGIC) else {
        return Err(Lz4Error::Magic { found: frame[..frame.len().min(4)].to_vec() });
    };
    let mut decoded = vec![0; expected];
    let mut filled = 0;
    let mut block = 0;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or(Lz4Error::CutShort { block })?;
        let length = usize::try_from(u32::from_le_bytes(*length))
            .map_err(|_| Lz4Error::CutShort { block })?;
        let (compressed, tail) =
            tail.split_at_checked(length).ok_or(Lz4Error::CutShort { block })?;
        let room = expected.min(filled + BLOCK_MAX);
        filled += lz4_flex::block::decompress_into(compressed, &mut decoded[filled..room])
            .map_err(|error| Lz4Error::Damaged { block, problem: error.to_string() })?;
        rest = tail;
        block += 1;
    }
    if filled == expected { Ok(decoded) } else { Err(Lz4Error::Length { expected, found: filled }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of stored literals: what an encoder without any idea would write.
    fn stored(blocks: &[&[u8]]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        for block in blocks {
            let mut coded = Vec::new();
            let token = block.len().min(15);
            coded.push(u8::try_from(token).unwrap() << 4);
            if token == 15 {
                let mut left = block.len() - 15;
                while left >= 255 {
                    coded.push(255);
                    left -= 255;
                }
                coded.push(u8::try_from(left).unwrap());
            }
            coded.extend_from_slice(block);
            frame.extend_from_slice(&u32::try_from(coded.len()).unwrap().to_le_bytes());
            frame.extend_from_slice(&coded);
        }
        frame
    }

    #[test]
    fn blocks_are_joined() {
        assert_eq!(decode_legacy(&stored(&[b"hello, ", b"kernel"]), 13).unwrap(), b"hello, kernel");
    }

    #[test]
    fn a_match_repeats_what_came_before_in_its_block() {
        // One literal, then nine bytes from one byte back, then the five literals that end a block.
        let block = [0x15, b'a', 1, 0, 0x50, b'v', b'w', b'x', b'y', b'z'];
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&10u32.to_le_bytes());
        frame.extend_from_slice(&block);
        assert_eq!(decode_legacy(&frame, 15).unwrap(), b"aaaaaaaaaavwxyz");
    }

    #[test]
    fn damage_is_named() {
        let frame = stored(&[b"hello"]);
        assert!(matches!(decode_legacy(b"\x04\x22M\x18", 5), Err(Lz4Error::Magic { .. })));
        assert!(matches!(
            decode_legacy(&frame[..frame.len() - 1], 5),
            Err(Lz4Error::CutShort { block: 0 })
        ));
        assert!(matches!(decode_legacy(&frame, 4), Err(Lz4Error::Damaged { block: 0, .. })));
        assert!(matches!(decode_legacy(&frame, 6), Err(Lz4Error::Length { found: 5, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_decoded_but_never_crash(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut frame = MAGIC.to_vec();
            frame.extend_from_slice(&bytes);
            drop(decode_legacy(&frame, 64));
        }

        #[test]
        fn what_was_stored_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(decode_legacy(&stored(&[&bytes]), bytes.len()).unwrap(), bytes);
        }
    }
}
