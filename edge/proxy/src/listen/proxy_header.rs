//! The PROXY header, versions 1 and 2: who a connection is really from, said by a load balancer.
//!
//! Exactly the header is read from the connection, so that nothing has to be put back.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first twelve bytes of version 2 (the specification's section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1 (section 2.1).
const V1_MAX_BYTES: usize = 107;
/// Longest version 2 header that is read: addresses and some extensions.
const V2_MAX_BYTES: usize = 4096;

/// Reads the header. `None`: it says that the connection is the balancer's own (a health check).
///
/// # Errors
///
/// If there is no header, or one that can't be understood.
pub(super) async fn read<I: AsyncRead + Unpin>(io: &mut I) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    io.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_v2(io, &mut header).await?;
    } else if header.starts_with(b"PROXY ") {
        read_v1(io, &mut header).await?;
    } else {
        return Err(bad("the connection does not begin with a PROXY header"));
    }
    parse(&header)
}

async fn read_v1<I: AsyncRead + Unpin>(io: &mut I, header: &mut Vec<u8>) -> io::Result<()> {
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_MAX_BYTES {
            return Err(bad("the PROXY line is too long"));
        }
        header.push(io.read_u8().await?);
    }
    Ok(())
}

async fn read_v2<I: AsyncRead + Unpin>(io: &mut I, header: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = [0; 4];
    io.read_exact(&mut rest).await?;
    header.extend_from_slice(&rest);
    let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
    if length > V2_MAX_BYTES {
        return Err(bad("the PROXY header is too long"));
    }
    let start = header.len();
    header.resize(start + length, 0);
    io.read_exact(&mut header[start..]).await?;
    Ok(())
}

fn parse(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let address = |ip: IpAddr, port| Ok(Some(SocketAddr::new(ip, port)));
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(tcp) => address(tcp.source_address.into(), tcp.source_port),
            v1::Addresses::Tcp6(tcp) => address(tcp.source_address.into(), tcp.source_port),
            v1::Addresses::Unknown => Ok(None),
        },
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => match header.addresses {
            v2::Addresses::IPv4(ip) => address(ip.source_address.into(), ip.source_port),
            v2::Addresses::IPv6(ip) => address(ip.source_address.into(), ip.source_port),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Ok(None),
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            Err(bad("the PROXY header is malformed"))
        }
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the header says, and what is left behind it.
    async fn header(bytes: &[u8]) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let mut input = bytes;
        let address = read(&mut input).await?;
        Ok((address, input.to_vec()))
    }

    #[tokio::test]
    async fn both_versions_say_who_it_is_and_leave_the_rest() {
        let (address, rest) =
            header(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nGET /").await.unwrap();
        assert_eq!((address, &rest[..]), ("192.0.2.1:5000".parse().ok(), &b"GET /"[..]));
        let (address, _) = header(b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\n").await.unwrap();
        assert_eq!(address, "[2001:db8::1]:5000".parse().ok());
        assert_eq!(header(b"PROXY UNKNOWN\r\nx").await.unwrap().0, None);
        let mut v2 = SIGNATURE.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 1, 187]);
        v2.extend_from_slice(b"rest");
        let (address, rest) = header(&v2).await.unwrap();
        assert_eq!((address, &rest[..]), ("192.0.2.1:5000".parse().ok(), &b"rest"[..]));
        let mut local = SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 0]);
        assert_eq!(header(&local).await.unwrap().0, None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        let mut huge = SIGNATURE.to_vec();
        huge.extend_from_slice(&[0x21, 0x11, 0xff, 0xff]);
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PROXY nonsense\r\n....", &long, &huge]
        {
            assert!(header(bytes).await.is_err(), "{bytes:?}");
        }
        assert!(header(b"PROXY TCP4").await.is_err(), "cut off");
    }
}
