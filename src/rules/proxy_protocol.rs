//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//!
//! Asks who is at the ends of the connection that a proxy took, from the bytes that have come so
//! far. Which peers are believed, and how long they may take, is left to whoever reads.
//!
//! ```text
//! "PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n"                   version 1, a line
//! signature · version and command · family · length · addresses · TLVs      version 2
//! ```
//!
//! The rules are those of HAProxy's `proxy-protocol.txt`. What is not of the protocol fails as
//! soon as its bytes show it. Of the TLVs only a checksum is heeded.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

/// The most bytes that a header has; version 2 could have 64 KiB, a line of version 1 has 107.
pub const BYTES_MAX: usize = 4096;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has; what follows is the client's.
    pub bytes: usize,
    /// Where the proxied connection begins and ends. None: the addresses of the connection that
    /// carries the header hold, since the proxy speaks for itself (a health check) or does not
    /// know, or for something that is no TCP over IP.
    pub ends: Option<Ends>,
}

/// The ends of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The checksum is of something else.
    Checksum,
    /// It begins as a header and does not go on as one.
    Malformed,
    /// It does not begin as a header.
    Missing,
    /// It has more than the most bytes.
    TooLarge,
}

/// Reads the header that `bytes` begin with; `None` while more bytes could complete one.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Flaw> {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        binary(bytes, rest)
    } else if bytes.starts_with(WORD) {
        line(bytes)
    } else if SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
        Ok(None)
    } else {
        Err(Flaw::Missing)
    }
}

/// Version 1. A receiver heeds nothing of a line that says UNKNOWN.
fn line(bytes: &[u8]) -> Result<Option<Header>, Flaw> {
    let within = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(Flaw::TooLarge),
        };
    };
    let said = within.get(WORD.len()..end).ok_or(Flaw::Malformed)?;
    let ends = match said == b"UNKNOWN" || said.starts_with(b"UNKNOWN ") {
        true => None,
        false => Some(said_ends(said).ok_or(Flaw::Malformed)?),
    };
    let bytes = end.saturating_add(2);
    Ok(Some(Header { bytes, ends }))
}

fn said_ends(said: &[u8]) -> Option<Ends> {
    let mut words = std::str::from_utf8(said).ok()?.split(' ');
    let ends = match words.next()? {
        "TCP4" => line_ends::<Ipv4Addr>(&mut words)?,
        "TCP6" => line_ends::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(ends)
}

fn line_ends<'a, A>(words: &mut impl Iterator<Item = &'a str>) -> Option<Ends>
where
    A: FromStr + Into<IpAddr>,
{
    let mut address = || words.next()?.parse::<A>().ok().map(A::into);
    let (source, destination) = (address()?, address()?);
    let mut port = || decimal(words.next()?);
    Some(Ends {
        source: SocketAddr::new(source, port()?),
        destination: SocketAddr::new(destination, port()?),
    })
}

/// A port as the protocol spells it: digits without a sign or leading zeros.
fn decimal(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    let spelled = text.bytes().all(|byte| byte.is_ascii_digit());
    (spelled && (text == "0" || !text.starts_with('0'))).then_some(port)
}

/// Version 2; `rest` is what comes after the signature.
fn binary(bytes: &[u8], rest: &[u8]) -> Result<Option<Header>, Flaw> {
    let Some(([version, family, high, low], rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(Flaw::Malformed),
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let whole = SIGNATURE.len().saturating_add(4).saturating_add(length);
    if whole > BYTES_MAX {
        return Err(Flaw::TooLarge);
    }
    let (Some(header), Some(block)) = (bytes.get(..whole), rest.get(..length)) else {
        return Ok(None);
    };
    let ends = match local {
        // Whatever the family says, it is to be ignored.
        true => None,
        false => block_ends(*family, block, header)?,
    };
    Ok(Some(Header { bytes: whole, ends }))
}

fn block_ends(family: u8, block: &[u8], header: &[u8]) -> Result<Option<Ends>, Flaw> {
    let stream = match family & 0x0f {
        0 | 2 => false,
        1 => true,
        _ => return Err(Flaw::Malformed),
    };
    let (ends, tlvs) = match family >> 4 {
        // How long its addresses would be is not said, so nor where its TLVs begin.
        0 => return Ok(None),
        1 => pair::<4, Ipv4Addr>(block)?,
        2 => pair::<16, Ipv6Addr>(block)?,
        3 => (None, block.get(UNIX_BYTES..).ok_or(Flaw::Malformed)?),
        _ => return Err(Flaw::Malformed),
    };
    check(tlvs, header)?;
    Ok(ends.filter(|_| stream))
}

/// Takes two addresses and two ports from the front of a block, and returns what is behind them.
fn pair<const N: usize, A>(block: &[u8]) -> Result<(Option<Ends>, &[u8]), Flaw>
where
    A: From<[u8; N]> + Into<IpAddr>,
{
    let take = || {
        let (source, block) = block.split_first_chunk::<N>()?;
        let (destination, block) = block.split_first_chunk::<N>()?;
        let (source_port, block) = block.split_first_chunk::<2>()?;
        let (destination_port, block) = block.split_first_chunk::<2>()?;
        let end = |address: &[u8; N], port: &[u8; 2]| {
            SocketAddr::new(A::from(*address).into(), u16::from_be_bytes(*port))
        };
        let ends = Ends {
            source: end(source, source_port),
            destination: end(destination, destination_port),
        };
        Some((Some(ends), block))
    };
    take().ok_or(Flaw::Malformed)
}

/// Walks over the TLVs, which must fill the block, and verifies the checksum if there is one.
fn check(mut tlvs: &[u8], header: &[u8]) -> Result<(), Flaw> {
    while !tlvs.is_empty() {
        let walk = || {
            let ([kind, high, low], rest) = tlvs.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            Some((*kind, rest.split_at_checked(length)?))
        };
        let (kind, (value, rest)) = walk().ok_or(Flaw::Malformed)?;
        tlvs = rest;
        if kind == CHECKSUM {
            let told = <[u8; 4]>::try_from(value).map_err(|_| Flaw::Malformed)?;
            let before = header
                .len()
                .saturating_sub(rest.len())
                .saturating_sub(told.len());
            if checksum(header, before, rest) != Some(u32::from_be_bytes(told)) {
                return Err(Flaw::Checksum);
            }
        }
    }
    Ok(())
}

/// The checksum of a header in which the four bytes of the checksum, between the first `before`
/// bytes and `after`, are zero.
fn checksum(header: &[u8], before: usize, after: &[u8]) -> Option<u32> {
    let sum = crc32c::crc32c(header.get(..before)?);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    Some(crc32c::crc32c_append(sum, after))
}

/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// Two paths of sockets.
const UNIX_BYTES: usize = 216;
/// The type of the TLV with the CRC32c of the header.
const CHECKSUM: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;
    use proptest::proptest;
    use proxy_header::ProxiedAddress;
    use proxy_header::ProxyHeader;
    use proxy_header::Tlv;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
    }

    fn whole(bytes: &[u8], ends: Option<Ends>) {
        let header = Header {
            bytes: bytes.len(),
            ends,
        };
        assert_eq!(read(bytes), Ok(Some(header)), "{}", bytes.escape_ascii());
        let followed = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&followed), Ok(Some(header)));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None), "{cut} bytes");
        }
    }

    fn v2(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version, family], &length, block].concat()
    }

    const INET: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0x01, 0xbb];

    fn inet(tlvs: &[u8]) -> Vec<u8> {
        v2(0x21, 0x11, &[INET, tlvs].concat())
    }

    fn inet_ends() -> Option<Ends> {
        ends("192.0.2.1:5000", "192.0.2.2:443")
    }

    #[test]
    fn a_line_tells_both_ends() {
        whole(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n", inet_ends());
        whole(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
            ends("[2001:db8::1]:0", "[2001:db8::2]:65535"),
        );
    }

    #[test]
    fn a_line_as_long_as_can_be_is_taken_and_a_longer_one_is_not() {
        let long = format!("PROXY UNKNOWN {}", "f".repeat(91));
        whole(format!("{long}\r\n").as_bytes(), None);
        let longer = format!("{long}f\r\n");
        assert_eq!(read(longer.as_bytes()), Err(Flaw::TooLarge));
        assert_eq!(read(&longer.as_bytes()[..106]), Ok(None));
        assert_eq!(read(&longer.as_bytes()[..107]), Err(Flaw::TooLarge));
    }

    #[test]
    fn an_unknown_connection_may_be_followed_by_anything_on_its_line() {
        whole(b"PROXY UNKNOWN\r\n", None);
        whole(b"PROXY UNKNOWN a b c d e f g h i \xff\r\n", None);
        whole(b"PROXY UNKNOWN ::1 ::2 5000 443\r\n", None);
    }

    #[test]
    fn a_line_is_spelled_exactly() {
        let lines = [
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 443 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 443 1\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +5000 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 05000 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 65536\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 5000 443\r\n",
            "PROXY TCP4 192.0.2 192.0.2.2 5000 443\r\n",
            "PROXY TCP4 ::1 ::2 5000 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 5000 443\r\n",
            "PROXY TCP6 fe80::1%1 ::2 5000 443\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 5000 443\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 5000 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\n\r\n",
            "PROXY TCP4 192.0.2.1\t192.0.2.2 5000 443\r\n",
        ];
        for line in lines {
            assert_eq!(read(line.as_bytes()), Err(Flaw::Malformed), "{line:?}");
        }
    }

    #[test]
    fn what_does_not_begin_as_a_header_is_known_at_its_first_wrong_byte() {
        let others: [&[u8]; 7] = [
            b"G",
            b"PO",
            b"PROXYT",
            b"proxy ",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\r\nG",
            b"\x16\x03\x01",
        ];
        for bytes in others {
            assert_eq!(read(bytes), Err(Flaw::Missing), "{}", bytes.escape_ascii());
        }
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn a_block_tells_both_ends() {
        whole(&inet(b""), inet_ends());
        let mut block = [0; 36];
        (block[15], block[31], block[33], block[35]) = (1, 2, 3, 4);
        whole(&v2(0x21, 0x21, &block), ends("[::1]:3", "[::2]:4"));
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_tells_nothing_whatever_its_block_says() {
        for family in [0x00, 0x11, 0x31, 0xff] {
            whole(&v2(0x20, family, b""), None);
            whole(&v2(0x20, family, INET), None);
        }
    }

    #[test]
    fn what_is_no_tcp_over_ip_tells_nothing() {
        whole(&v2(0x21, 0x00, b""), None);
        whole(&v2(0x21, 0x01, INET), None);
        whole(&v2(0x21, 0x12, INET), None);
        whole(&v2(0x21, 0x10, INET), None);
        whole(&v2(0x21, 0x22, &[1; 36]), None);
        whole(&v2(0x21, 0x31, &[1; 216]), None);
    }

    #[test]
    fn versions_commands_families_and_protocols_that_there_are_not_are_refused() {
        let cases = [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x2f, 0x11)];
        let families = [0x13, 0x1f, 0x41, 0xf1].map(|family| (0x21, family));
        for (version, family) in cases.into_iter().chain(families) {
            let bytes = v2(version, family, &[1; 300]);
            assert_eq!(read(&bytes), Err(Flaw::Malformed), "{version} {family}");
        }
    }

    #[test]
    fn a_block_must_hold_its_addresses() {
        for (family, bytes) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
            whole(
                &v2(0x21, family, &vec![0; bytes]),
                read(&v2(0x21, family, &vec![0; bytes]))
                    .unwrap()
                    .unwrap()
                    .ends,
            );
            let short = v2(0x21, family, &vec![0; bytes - 1]);
            assert_eq!(read(&short), Err(Flaw::Malformed), "{family}");
        }
    }

    #[test]
    fn values_behind_the_addresses_are_skipped_and_must_fill_the_block() {
        whole(&inet(b"\x01\0\x02h2\x05\0\x00\xee\0\x01a"), inet_ends());
        for tlvs in [&b"\x01"[..], b"\x01\0", b"\x01\0\x02h", b"\x04\xff\xff"] {
            assert_eq!(read(&inet(tlvs)), Err(Flaw::Malformed), "{tlvs:?}");
        }
    }

    #[test]
    fn a_checksum_is_verified_wherever_it_stands() {
        for (before, after) in [(&b""[..], &b""[..]), (b"\x01\0\x02h2", b"\x04\0\x01\0")] {
            let tlvs = [before, b"\x03\0\x04\0\0\0\0", after].concat();
            let mut bytes = inet(&tlvs);
            let place = 28 + before.len() + 3;
            let sum = crc32c::crc32c(&bytes);
            bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
            whole(&bytes, inet_ends());
            bytes[17] ^= 1;
            assert_eq!(read(&bytes), Err(Flaw::Checksum));
        }
        assert_eq!(read(&inet(b"\x03\0\x03\0\0\0")), Err(Flaw::Malformed));
    }

    #[test]
    fn the_checksum_is_the_one_of_castagnoli() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_block_as_long_as_can_be_is_taken_and_a_longer_one_is_refused_by_its_length() {
        let most = BYTES_MAX - 16;
        assert!(read(&v2(0x20, 0, &vec![0; most])).unwrap().is_some());
        let longer = v2(0x20, 0, &vec![0; most + 1]);
        assert_eq!(read(&longer[..16]), Err(Flaw::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(start in 0..4_usize, bytes in vec(any::<u8>(), 0..300)) {
            let starts: [&[u8]; 4] = [b"", b"PROXY ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];
            let bytes = [starts[start], &bytes].concat();
            if let Ok(Some(header)) = read(&bytes) {
                prop_assert!(header.bytes <= bytes.len().min(BYTES_MAX));
            }
        }

        #[test]
        fn what_another_writes_is_read(
            source: SocketAddr,
            destination: SocketAddr,
            authority in "[a-z.]{0,40}",
        ) {
            let alike = source.is_ipv4() == destination.is_ipv4();
            let destination = match alike {
                true => destination,
                false => SocketAddr::new(source.ip(), destination.port()),
            };
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let told = Some(Ends { source: plain(source), destination: plain(destination) });
            let mut header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
            let mut line = Vec::new();
            header.encode_v1(&mut line).unwrap();
            prop_assert_eq!(read(&line), Ok(Some(Header { bytes: line.len(), ends: told })));
            header.append_tlv(Tlv::Authority(authority.as_str().into()));
            let mut block = Vec::new();
            header.encode_v2(&mut block).unwrap();
            prop_assert_eq!(read(&block), Ok(Some(Header { bytes: block.len(), ends: told })));
        }
    }
}
