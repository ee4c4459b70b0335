//! Which datagrams of a received buffer stay, and which go to somebody else?
//!
//! The kernel may have put several datagrams of one peer into one buffer (GRO, `stride` bytes each), and these may
//! belong to different connections. What stays is moved together; runs for the same place go on as one packet.

use quinn::udp::RecvMeta;

use crate::cid::CID_LEN;
use crate::shared::Route;

/// Where the destination connection id of a long header starts: after the first byte, the version and its length
/// (RFC 8999 section 5.1).
const LONG_ID_AT: usize = 6;
/// The bit of the first byte that says "long header" (RFC 8999 section 5).
const LONG: u8 = 0x80;

/// The destination connection id of a datagram if it can be one of ours, and whether the header is long.
pub(crate) fn destination(datagram: &[u8]) -> Destination<'_> {
    match datagram {
        [first, rest @ ..] if first & LONG == 0 => match rest.first_chunk() {
            Some(id) => Destination::Short(id),
            // Too short for a packet of ours; there is nothing to steer by.
            None => Destination::None,
        },
        [_, _, _, _, _, len, ..] if usize::from(*len) == CID_LEN => {
            datagram[LONG_ID_AT..].first_chunk().map_or(Destination::None, Destination::Long)
        }
        _ => Destination::None,
    }
}

/// What a datagram can be steered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    Short(&'a [u8; CID_LEN]),
    Long(&'a [u8; CID_LEN]),
    None,
}

/// Remembers the last connection id, since datagrams that arrive together are mostly of one connection.
#[derive(Debug, Default)]
pub(crate) struct Memo(Option<([u8; CID_LEN], bool, Route)>);

impl Memo {
    /// The route of `datagram`; `decide` is asked if it is not the same connection as last time.
    pub(crate) fn route(
        &mut self,
        datagram: &[u8],
        decide: impl FnOnce(&[u8; CID_LEN], bool) -> Route,
    ) -> Route {
        let (id, long) = match destination(datagram) {
            Destination::Short(id) => (id, false),
            Destination::Long(id) => (id, true),
            Destination::None => return Route::Here,
        };
        match &self.0 {
            Some((last, was_long, route)) if last == id && *was_long == long => *route,
            _ => {
                let route = decide(id, long);
                self.0 = Some((*id, long, route));
                route
            }
        }
    }
}

/// Keeps in `buf` what stays, gives every other run of datagrams to `pass_on` (with their number), and corrects
/// `meta.len`. Returns how many stay.
pub(crate) fn sift(
    buf: &mut [u8],
    meta: &mut RecvMeta,
    mut route: impl FnMut(&[u8]) -> Route,
    mut pass_on: impl FnMut(Route, &[u8], &RecvMeta, usize),
) -> usize {
    let len = meta.len.min(buf.len());
    let stride = if meta.stride == 0 { len.max(1) } else { meta.stride };
    let (mut at, mut kept_bytes, mut kept) = (0, 0, 0);
    while at < len {
        let first = (at + stride).min(len);
        let to = route(&buf[at..first]);
        let (mut end, mut n) = (first, 1);
        while end < len && route(&buf[end..(end + stride).min(len)]) == to {
            (end, n) = ((end + stride).min(len), n + 1);
        }
        if to == Route::Here {
            if kept_bytes != at {
                buf.copy_within(at..end, kept_bytes);
            }
            kept_bytes += end - at;
            kept += n;
        } else {
            pass_on(to, &buf[at..end], meta, n);
        }
        at = end;
    }
    meta.len = kept_bytes;
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_first_byte(datagram: &[u8]) -> Route {
        match datagram[0] {
            0 => Route::Here,
            9 => Route::Nowhere,
            n => Route::Worker(n),
        }
    }

    proptest! {
        #[test]
        fn every_datagram_arrives_once_and_in_order(
            routes in proptest::collection::vec(0..4_u8, 1..40), stride in 3..50_usize, cut in 0..50_usize,
        ) {
            let mut data = Vec::new();
            for (n, to) in (0_u8..).zip(&routes) {
                data.extend_from_slice(&vec![*to; stride]);
                let at = data.len() - stride + 1;
                data[at] = n;
            }
            data.truncate(data.len() - cut % (stride - 1));
            let whole = data.clone();
            let mut meta = RecvMeta::default();
            (meta.len, meta.stride) = (data.len(), stride);
            let mut seen: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 4];
            let kept = sift(&mut data, &mut meta, by_first_byte, |to, run, _, n| {
                let Route::Worker(to) = to else { panic!("only workers here") };
                assert_eq!(run.len().div_ceil(stride), n);
                seen[usize::from(to)].extend(run.chunks(stride).map(<[u8]>::to_vec));
            });
            seen[0] = data[..meta.len].chunks(stride).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(seen[0].len(), kept);
            for (to, seen) in (0_u8..).zip(seen) {
                let sent: Vec<Vec<u8>> =
                    whole.chunks(stride).filter(|d| d[0] == to).map(<[u8]>::to_vec).collect();
                prop_assert_eq!(seen, sent);
            }
        }

        #[test]
        fn any_bytes_have_a_destination_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let long = bytes.first().is_some_and(|first| first & 0x80 != 0);
            match destination(&bytes) {
                Destination::Short(id) => prop_assert!(!long && id[..] == bytes[1..17]),
                Destination::Long(id) => prop_assert!(long && id[..] == bytes[6..22]),
                Destination::None => prop_assert!(long || bytes.len() < 17),
            }
        }
    }

    #[test]
    fn an_empty_datagram_and_a_stride_of_zero_do_no_harm() {
        let mut meta = RecvMeta::default();
        assert_eq!(sift(&mut [], &mut meta, by_first_byte, |_, _, _, _| panic!("nothing")), 0);
        let mut data = [0; 5];
        meta.len = 5;
        assert_eq!(sift(&mut data, &mut meta, by_first_byte, |_, _, _, _| panic!("nothing")), 1);
        assert_eq!(meta.len, 5);
    }

    #[test]
    fn the_memo_asks_once_per_connection() {
        let mut memo = Memo::default();
        let mut asked = 0;
        let (a, b) = ([1; 30], [2; 30]);
        for datagram in [&a, &a, &b, &b, &a] {
            memo.route(datagram, |_, _| {
                asked += 1;
                Route::Here
            });
        }
        assert_eq!(asked, 3);
    }
}
