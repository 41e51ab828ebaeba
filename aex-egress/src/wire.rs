//! A TCP connection to a provider: how it is made, and whether an idle one is still whole.
//!
//! A resent request could be billed twice, so nothing is ever resent after a byte may have been
//! written. What helps instead is to see before the first byte that a kept connection is dead;
//! that needs a look at the socket while hyper owns its stream, hence the second descriptor.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 6;
/// How long an address is tried alone before the next joins in (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address that answers. The caller bounds the time.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await?,
        Err(_) => {
            let found = lookup_host((host, port)).await?;
            race(found.take(MAX_ADDRESSES).collect()).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut left = addresses.into_iter();
    let mut tried = FuturesUnordered::new();
    loop {
        match left.next() {
            Some(address) => tried.push(TcpStream::connect(address)),
            None if tried.is_empty() => return Err(last),
            None => {}
        }
        let answer = if left.len() == 0 {
            tried.next().await
        } else {
            timeout(HEAD_START, tried.next()).await.unwrap_or(None)
        };
        match answer {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// A second descriptor of a connection, to look at it while its stream is in use.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }

    /// Nothing was sent on it that is still to be read, and it was not closed: on an idle connection
    /// anything else would be the answer to nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(
            recv(self.0.as_raw_fd(), &mut [0; 1], flags),
            Err(Errno::EAGAIN)
        )
    }
}
