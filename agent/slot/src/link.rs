//! Links, addresses, routes and neighbours: the handful of changes a slot needs.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{CREATE, EXCLUSIVE, Message, Netlink, REPLACE, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWQDISC: u16 = 36;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_PROHIBIT: u8 = 8;

/// ctnetlink's "delete connections", which deletes all of them when it names none.
const CT_DELETE: u16 = (1 << 8) | 2;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_H_ROOT: u32 = u32::MAX;
const TC_LINKLAYER_ETHERNET: u8 = 1;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_IP_SRC: u32 = 1;

/// The fixed part of a link's message, bytes.
const LINK_BODY: usize = 16;

/// What the kernel says about a link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) queue_len: Option<u32>,
    pub(crate) tun: Option<Tun>,
}

/// What is particular to a tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tun {
    pub(crate) owner: Option<u32>,
    pub(crate) persistent: bool,
    pub(crate) vnet_hdr: bool,
}

/// Where a default route leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DefaultRoute {
    /// Nowhere: senders hear "administratively prohibited" at once.
    Prohibited,
    /// To a gateway on a link.
    Via { gateway: Ipv4Addr, link: u32 },
}

fn link_body(index: u32, flags: u32, change: u32) -> [u8; LINK_BODY] {
    let mut body = [0; LINK_BODY];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Looks a link up by its name; `None` if there is none.
pub(crate) fn find(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    let message = Message::new(RTM_GETLINK, 0, &link_body(0, 0, 0)).text(IFLA_IFNAME, name);
    match netlink.get(message) {
        Ok(body) => Ok(Some(parse(&body))),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Like [`find`], for a link that must be there.
pub(crate) fn get(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    find(netlink, name)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// All links of the namespace.
pub(crate) fn list(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    let message = Message::new(RTM_GETLINK, 0, &link_body(0, 0, 0));
    netlink.dump(message, |body| links.push(parse(body)))?;
    Ok(links)
}

/// Makes a veth pair: `name` here, `peer` in the namespace `peer_netns`.
pub(crate) fn add_veth(
    netlink: &mut Netlink,
    name: &str,
    peer: &str,
    peer_netns: BorrowedFd<'_>,
) -> io::Result<()> {
    let empty = link_body(0, 0, 0);
    let netns = peer_netns.as_raw_fd().to_ne_bytes();
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &empty)
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, &[], |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, &[], |m| {
                m.nest(VETH_INFO_PEER, &empty, |m| {
                    m.text(IFLA_IFNAME, peer).attr(IFLA_NET_NS_FD, &netns)
                })
            })
        });
    netlink.request(message)
}

/// Deletes a link; one that is gone already is fine.
pub(crate) fn delete(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    let message = Message::new(RTM_DELLINK, 0, &link_body(0, 0, 0)).text(IFLA_IFNAME, name);
    match netlink.request(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Sets a link's MAC address and queue length, then brings it up.
pub(crate) fn start_tap(
    netlink: &mut Netlink,
    index: u32,
    mac: [u8; 6],
    queue_len: u32,
) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, 0, &link_body(index, IFF_UP, IFF_UP))
        .attr(IFLA_ADDRESS, &mac)
        .attr(IFLA_TXQLEN, &queue_len.to_ne_bytes());
    netlink.request(message)
}

/// Brings a link up.
pub(crate) fn set_up(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.request(Message::new(RTM_NEWLINK, 0, &link_body(index, IFF_UP, IFF_UP)))
}

/// Sets the text that a link carries for its owner.
pub(crate) fn set_alias(netlink: &mut Netlink, index: u32, alias: &str) -> io::Result<()> {
    let message =
        Message::new(RTM_NEWLINK, 0, &link_body(index, 0, 0)).attr(IFLA_IFALIAS, alias.as_bytes());
    netlink.request(message)
}

/// Gives a link an IPv4 address.
pub(crate) fn add_address(
    netlink: &mut Netlink,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    let mut body = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(RTM_NEWADDR, CREATE | REPLACE, &body)
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets());
    netlink.request(message)
}

/// Replaces the default route, atomically.
pub(crate) fn set_default_route(netlink: &mut Netlink, route: DefaultRoute) -> io::Result<()> {
    let kind = match route {
        DefaultRoute::Prohibited => RTN_PROHIBIT,
        DefaultRoute::Via { .. } => RTN_UNICAST,
    };
    let body = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, kind, 0, 0, 0, 0];
    let mut message = Message::new(RTM_NEWROUTE, CREATE | REPLACE, &body);
    if let DefaultRoute::Via { gateway, link } = route {
        message = message.attr(RTA_GATEWAY, &gateway.octets()).attr(RTA_OIF, &link.to_ne_bytes());
    }
    netlink.request(message)
}

/// Limits what leaves through a link: a token bucket of `burst` bytes, filled with `rate` bytes per
/// second. What finds it empty waits in a queue of `queue` bytes, or is dropped if that is full.
pub(crate) fn limit_rate(
    netlink: &mut Netlink,
    index: u32,
    rate: u64,
    burst: u32,
    queue: u32,
) -> io::Result<()> {
    let mut body = [0; 20]; // struct tcmsg
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&0x1_0000_u32.to_ne_bytes());
    body[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
    // struct tc_tbf_qopt; its 32-bit rate and ticks are superseded by the attributes after it.
    let mut parameters = [0; 36];
    parameters[1] = TC_LINKLAYER_ETHERNET;
    let low_rate = u32::try_from(rate).unwrap_or(u32::MAX);
    parameters[8..12].copy_from_slice(&low_rate.to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    let message = Message::new(RTM_NEWQDISC, CREATE | REPLACE, &body).text(TCA_KIND, "tbf").nest(
        TCA_OPTIONS,
        &[],
        |m| {
            m.attr(TCA_TBF_PARMS, &parameters)
                .attr(TCA_TBF_BURST, &burst.to_ne_bytes())
                .attr(TCA_TBF_RATE64, &rate.to_ne_bytes())
        },
    );
    netlink.request(message)
}

/// Fixes a neighbour's MAC address, so that it is never asked for and cannot be forged.
pub(crate) fn set_neighbour(
    netlink: &mut Netlink,
    index: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> io::Result<()> {
    let mut body = [0; 12];
    body[0] = AF_INET;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    let message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE, &body)
        .attr(NDA_DST, &address.octets())
        .attr(NDA_LLADDR, &mac);
    netlink.request(message)
}

/// Forgets the tracked connections of the namespace that `source` opened, or all of them.
/// `netlink` is a netfilter socket.
pub(crate) fn flush_connections(netlink: &mut Netlink, source: Option<Ipv4Addr>) -> io::Result<()> {
    let Some(source) = source else {
        return netlink.request(Message::new(CT_DELETE, 0, &[0; 4]));
    };
    // Version 1 makes the kernel look at the family.
    let message = Message::new(CT_DELETE, 0, &[AF_INET, 1, 0, 0])
        .nest(CTA_TUPLE_ORIG, &[], |m| {
            m.nest(CTA_TUPLE_IP, &[], |m| m.attr(CTA_IP_V4_SRC, &source.octets()))
        })
        .nest(CTA_FILTER, &[], |m| {
            m.attr(CTA_FILTER_ORIG_FLAGS, &CTA_FILTER_IP_SRC.to_ne_bytes())
                .attr(CTA_FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes())
        });
    netlink.request(message)
}

fn parse(body: &[u8]) -> Link {
    let mut link = Link::default();
    let Some(fixed) = body.first_chunk::<LINK_BODY>() else { return link };
    link.index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    link.up = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) & IFF_UP != 0;
    for (kind, value) in attributes(&body[LINK_BODY..]) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_TXQLEN => link.queue_len = number(value),
            IFLA_LINKINFO => link.tun = parse_tun(value),
            _ => {}
        }
    }
    link
}

fn parse_tun(info: &[u8]) -> Option<Tun> {
    let find =
        |wanted| attributes(info).find_map(|(kind, value)| (kind == wanted).then_some(value));
    if text(find(IFLA_INFO_KIND)?) != "tun" {
        return None;
    }
    let mut tun = Tun::default();
    for (kind, value) in attributes(find(IFLA_INFO_DATA)?) {
        match kind {
            IFLA_TUN_OWNER => tun.owner = number(value),
            IFLA_TUN_VNET_HDR => tun.vnet_hdr = value == [1],
            IFLA_TUN_PERSIST => tun.persistent = value == [1],
            _ => {}
        }
    }
    Some(tun)
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}
