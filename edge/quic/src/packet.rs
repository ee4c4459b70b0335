//! How does a received packet look on its way to the worker or process it belongs to?
//!
//! In memory it is [`Packet`]. Between processes of one host it is one message of a Unix datagram socket: a header of
//! [`HEADER_LEN`] bytes with what the kernel said about the packet, then its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use quinn::udp::{EcnCodepoint, RecvMeta};

/// Version of the header; another one is dropped, not guessed at.
const VERSION: u8 = 1;
/// Length of the header between processes, in bytes.
pub(crate) const HEADER_LEN: usize = 52;

const PEER_V6: u8 = 1;
const HAS_LOCAL: u8 = 2;
const LOCAL_V6: u8 = 4;

/// One or more datagrams of one peer (`meta.stride` bytes each, the last may be shorter).
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) meta: RecvMeta,
    pub(crate) data: Box<[u8]>,
}

impl Packet {
    /// A copy of `data`, of which `meta` tells the peer, the local address, the marks and the stride.
    pub(crate) fn copy(data: &[u8], meta: &RecvMeta) -> Self {
        Self { meta: RecvMeta { len: data.len(), ..*meta }, data: data.into() }
    }
}

/// Header and bytes as one message.
pub(crate) fn encode(data: &[u8], meta: &RecvMeta) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN + data.len());
    message.extend_from_slice(&header(meta));
    message.extend_from_slice(data);
    message
}

/// What the header of a message of `len` payload bytes says; `None` if it makes no sense.
pub(crate) fn decode(header: &[u8; HEADER_LEN], len: usize) -> Option<RecvMeta> {
    let [version, flags, ecn, 0, rest @ ..] = header else { return None };
    if *version != VERSION || len == 0 {
        return None;
    }
    let stride = usize::try_from(u32::from_be_bytes(rest[..4].try_into().ok()?)).ok()?;
    if stride == 0 {
        return None;
    }
    let port = u16::from_be_bytes(rest[4..6].try_into().ok()?);
    let flow = u32::from_be_bytes(rest[8..12].try_into().ok()?);
    let scope = u32::from_be_bytes(rest[12..16].try_into().ok()?);
    let addr = match ip(&rest[16..32], flags & PEER_V6 != 0)? {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)),
    };
    let dst_ip = match flags & HAS_LOCAL {
        0 => None,
        _ => Some(ip(&rest[32..48], flags & LOCAL_V6 != 0)?),
    };
    Some(RecvMeta { addr, len, stride, ecn: EcnCodepoint::from_bits(*ecn), dst_ip })
}

fn header(meta: &RecvMeta) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let mut flags = 0;
    if meta.addr.is_ipv6() {
        flags |= PEER_V6;
    }
    if let Some(local) = meta.dst_ip {
        flags |= HAS_LOCAL | if local.is_ipv6() { LOCAL_V6 } else { 0 };
        header[36..52].copy_from_slice(&sixteen(local));
    }
    header[0] = VERSION;
    header[1] = flags;
    header[2] = meta.ecn.map_or(0, |ecn| ecn as u8);
    let stride = u32::try_from(meta.stride).unwrap_or(u32::MAX);
    header[4..8].copy_from_slice(&stride.to_be_bytes());
    header[8..10].copy_from_slice(&meta.addr.port().to_be_bytes());
    if let SocketAddr::V6(peer) = meta.addr {
        header[12..16].copy_from_slice(&peer.flowinfo().to_be_bytes());
        header[16..20].copy_from_slice(&peer.scope_id().to_be_bytes());
    }
    header[20..36].copy_from_slice(&sixteen(meta.addr.ip()));
    header
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ip(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(if v6 {
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(message: &[u8]) -> ([u8; HEADER_LEN], usize) {
        (message[..HEADER_LEN].try_into().unwrap(), message.len() - HEADER_LEN)
    }

    proptest! {
        #[test]
        fn what_the_kernel_said_survives_the_way(
            peer: SocketAddr, local: Option<IpAddr>, bits in 0..4_u8, stride in 1..70_000_usize,
            data in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let ecn = EcnCodepoint::from_bits(bits);
            let meta = RecvMeta { addr: peer, len: 0, stride, ecn, dst_ip: local };
            let message = encode(&data, &meta);
            let (header, len) = split(&message);
            let back = decode(&header, len).unwrap();
            prop_assert_eq!((back.addr, back.dst_ip, back.stride), (peer, local, stride));
            prop_assert_eq!((back.ecn, back.len), (meta.ecn, data.len()));
            prop_assert_eq!(&message[HEADER_LEN..], &data[..]);
        }

        #[test]
        fn garbage_never_panics_and_never_gives_a_stride_of_zero(bytes: [u8; 32], len in 0..100_usize) {
            let mut header = [0; HEADER_LEN];
            header[..32].copy_from_slice(&bytes);
            if let Some(meta) = decode(&header, len) {
                prop_assert!(meta.stride > 0 && meta.len == len);
            }
        }
    }

    #[test]
    fn another_version_and_an_empty_packet_are_refused() {
        let meta = RecvMeta { stride: 100, ..RecvMeta::default() };
        let (mut header, _) = split(&encode(b"x", &meta));
        assert!(decode(&header, 1).is_some());
        assert!(decode(&header, 0).is_none());
        header[0] = VERSION + 1;
        assert!(decode(&header, 1).is_none());
    }
}
