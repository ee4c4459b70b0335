//! What a field block says: a head, trailers, or too much.

use bytes::Bytes;
use edge_fields::{Field, Malformed, RequestFields, TrailerFields};

use crate::{Config, inbound::Fault, limits::Excess, wire::hpack::Decoder};

/// A block that is so many times larger than allowed, decoded, is no mistake.
const MUCH: usize = 4;

/// What was made of a block.
#[derive(Debug)]
pub(crate) enum Section<T> {
    Good(T),
    /// It breaks a rule.
    Malformed(&'static str),
    /// Its fields are larger than allowed: the answer is 431.
    TooLarge,
}

/// Most bytes of a block that are held.
pub(crate) const fn most_bytes(config: &Config) -> usize {
    (config.max_header_list_bytes as usize).saturating_mul(MUCH)
}

/// The fields of a request's head.
pub(crate) fn request(
    decoder: &mut Decoder,
    block: Bytes,
    config: &Config,
) -> Result<Section<RequestFields>, Fault> {
    read(decoder, block, config, RequestFields::default(), RequestFields::add)
}

/// The fields of trailers.
pub(crate) fn trailers(
    decoder: &mut Decoder,
    block: Bytes,
    config: &Config,
) -> Result<Section<TrailerFields>, Fault> {
    read(decoder, block, config, TrailerFields::default(), TrailerFields::add)
}

/// Reads a block to its end, whatever is found in it: it counts for the blocks that follow.
fn read<T>(
    decoder: &mut Decoder,
    block: Bytes,
    config: &Config,
    mut fields: T,
    add: fn(&mut T, Field) -> Result<(), Malformed>,
) -> Result<Section<T>, Fault> {
    let limit = config.max_header_list_bytes as usize;
    let (mut bytes, mut malformed) = (0_usize, None);
    decoder.decode(block, |field| {
        bytes = bytes.saturating_add(field.size());
        if bytes <= limit
            && malformed.is_none()
            && let Err(error) = add(&mut fields, field)
        {
            malformed = Some(error.0);
        }
    })?;
    if bytes > limit.saturating_mul(MUCH) {
        return Err(Excess::HeadBytes.into());
    }
    Ok(match malformed {
        _ if bytes > limit => Section::TooLarge,
        Some(reason) => Section::Malformed(reason),
        None => Section::Good(fields),
    })
}
