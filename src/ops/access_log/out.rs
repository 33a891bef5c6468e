//! Where lines go: a file, standard output, or a syslog (RFC 5424) by its socket or over UDP.
//!
//! A file and standard output are buffered; a syslog gets a datagram a line.

use super::line;
use super::line::Field;
use super::line::Format;
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Appended to a file.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To a syslog.
    Syslog(Collector, Facility),
}

/// A syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    /// On this machine, by the path of its socket.
    Socket(PathBuf),
    /// By UDP: a host and a port.
    Udp(String),
}

/// What a syslog takes messages to be of (RFC 5424 §6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Facility {
    /// User-level messages.
    User,
    /// System daemons.
    Daemon,
    /// Local use 0.
    Local0,
    /// Local use 1.
    Local1,
    /// Local use 2.
    Local2,
    /// Local use 3.
    Local3,
    /// Local use 4.
    Local4,
    /// Local use 5.
    Local5,
    /// Local use 6.
    Local6,
    /// Local use 7, as other servers use by default.
    #[default]
    Local7,
}

impl Facility {
    fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Daemon => 3,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

/// A destination that has been opened.
pub(super) enum Out {
    /// Takes lines one after the other.
    Stream(Box<dyn Write + Send>),
    /// Takes datagrams.
    Syslog(Syslog),
}

impl Out {
    /// Opens a destination; none when lines go nowhere.
    pub(super) fn open(
        destination: &Destination,
        format: Format,
        fields: &[Field],
    ) -> io::Result<Option<Self>> {
        let stream: Box<dyn Write + Send> = match destination {
            Destination::Off => return Ok(None),
            Destination::Syslog(collector, facility) => {
                let syslog = Syslog::open(collector.clone(), *facility)?;
                return Ok(Some(Self::Syslog(syslog)));
            }
            Destination::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                Box::new(BufWriter::with_capacity(BUFFER_BYTES, file))
            }
            Destination::Stdout => Box::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
        };
        let mut stream = stream;
        if let Some(preamble) = line::preamble(format, fields) {
            stream.write_all(preamble.as_bytes())?;
        }
        Ok(Some(Self::Stream(stream)))
    }

    /// Writes one line, which has no end yet.
    pub(super) fn write(&mut self, at: SystemTime, line: &mut String) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                line.push('\n');
                stream.write_all(line.as_bytes())
            }
            Self::Syslog(syslog) => syslog.send(at, line),
        }
    }

    /// Writes what is buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::Syslog(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::Syslog(_) => "Syslog",
        })
    }
}

/// A connection to a syslog.
pub(super) struct Syslog {
    collector: Collector,
    socket: Socket,
    /// The priority and the version.
    priority: String,
    /// Host, program and process, as the header has them.
    sender: String,
    datagram: String,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    fn open(collector: &Collector) -> io::Result<Self> {
        match collector {
            Collector::Socket(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                // A syslog that does not read holds up the lines, but not the end of the process.
                socket.set_write_timeout(Some(SEND_WAIT_MAX))?;
                Ok(Self::Unix(socket))
            }
            Collector::Udp(name) => {
                let found = name.to_socket_addrs()?.next();
                let address = found.ok_or_else(|| io::Error::other("the name has no address"))?;
                let any: SocketAddr = match address.is_ipv4() {
                    true => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    false => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(datagram).map(drop),
            Self::Unix(socket) => socket.send(datagram).map(drop),
        }
    }
}

impl Syslog {
    fn open(collector: Collector, facility: Facility) -> io::Result<Self> {
        let socket = Socket::open(&collector)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let fits = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        let host = if fits { host } else { "-" };
        let process = std::process::id();
        Ok(Self {
            collector,
            socket,
            priority: format!("<{}>1", u16::from(facility.number()) * 8 + INFORMATIONAL),
            sender: format!("{host} larder {process} access -"),
            datagram: String::new(),
        })
    }

    fn send(&mut self, at: SystemTime, line: &str) -> io::Result<()> {
        self.datagram.clear();
        let time = humantime::format_rfc3339_micros(at);
        // Writing to a String cannot fail.
        let _ = write!(
            self.datagram,
            "{} {time} {} {line}",
            self.priority, self.sender
        );
        if self.socket.send(self.datagram.as_bytes()).is_ok() {
            return Ok(());
        }
        // It may have been started anew since.
        self.socket = Socket::open(&self.collector)?;
        self.socket.send(self.datagram.as_bytes())
    }
}

/// The severity of every line (RFC 5424 §6.2.1).
const INFORMATIONAL: u16 = 6;
/// Bytes gathered before they are written, unless the queue runs empty.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a syslog may take to take a line.
const SEND_WAIT_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 2048];
        let read = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    fn out(collector: Collector) -> Out {
        let destination = Destination::Syslog(collector, Facility::Local7);
        let out = Out::open(&destination, Format::Combined, &[]);
        out.unwrap().unwrap()
    }

    fn say(out: &mut Out, text: &str) -> io::Result<()> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000);
        out.write(at, &mut text.to_owned())
    }

    #[test]
    fn a_syslog_gets_a_datagram_a_line_with_the_header_of_rfc_5424() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut out = out(Collector::Socket(path));
        say(&mut out, "a line").unwrap();
        let got = received(&socket);
        let words: Vec<_> = got.splitn(8, ' ').collect();
        let process = std::process::id().to_string();
        assert_eq!(words[..2], ["<190>1", "1970-01-01T00:00:01.500000Z"]);
        assert_eq!(words[3..], ["larder", &process, "access", "-", "a line"]);
    }

    #[test]
    fn a_syslog_that_was_started_anew_gets_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let before = UnixDatagram::bind(&path).unwrap();
        let mut out = out(Collector::Socket(path.clone()));
        drop(before);
        fs::remove_file(&path).unwrap();
        assert!(say(&mut out, "lost").is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        say(&mut out, "kept").unwrap();
        assert!(received(&socket).ends_with("- kept"));
    }

    #[test]
    fn a_syslog_can_be_somewhere_else() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut out = out(Collector::Udp(format!("127.0.0.1:{port}")));
        say(&mut out, "a line").unwrap();
        let mut buffer = [0; 2048];
        let read = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..read].ends_with(b" access - a line"));
    }

    #[test]
    fn nobody_there_is_found_out_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let collector = Collector::Socket(folder.path().join("none"));
        let destination = Destination::Syslog(collector, Facility::User);
        assert!(Out::open(&destination, Format::Json, &[]).is_err());
    }
}
