//! A Unix stream socket that is told of room to write only while a write waits for it.
//!
//! Linux tells the sender of a Unix socket of new room each time the peer reads (`unix_write_space`),
//! and the runtime's own stream always listens: each message then wakes its sender once more for
//! nothing, which between busy programs is the dearest part of a message. TCP tells only those that
//! ran out of room.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Most bytes of one read, as far as there is room for them.
pub const READ_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub struct QuietStream {
    /// Listens for bytes to read, and for nothing else.
    io: AsyncFd<StdStream>,
    /// A second descriptor of the same socket, there while [`AsyncWrite`] waits for room.
    full: Option<AsyncFd<StdStream>>,
}

impl QuietStream {
    /// # Errors
    /// The socket cannot be registered with the runtime.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        Ok(Self {
            io: listen(stream, Interest::READABLE)?,
            full: None,
        })
    }

    /// Writes what the socket takes now. From whichever thread.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; the socket's own.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.io.get_ref().write(bytes))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends when the socket may take more.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn writable(&self) -> io::Result<()> {
        self.listen_for_room()?.writable().await?.retain_ready();
        Ok(())
    }

    /// Appends what has come, at most [`READ_BYTES`], when something has. Nothing at the end.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let had = buffer.len();
        buffer.resize(had + READ_BYTES, 0);
        let read = self.read_into(&mut buffer[had..]).await;
        buffer.truncate(had + read.as_ref().map_or(0, |&bytes| bytes));
        read
    }

    async fn read_into(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.io.readable().await?;
            match uninterrupted(|| self.io.get_ref().read(room)) {
                Ok(bytes) => {
                    // Less than asked for: that was all, and the next read waits at once.
                    if bytes > 0 && bytes < room.len() {
                        guard.clear_ready();
                    }
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    fn listen_for_room(&self) -> io::Result<AsyncFd<StdStream>> {
        listen(self.io.get_ref().try_clone()?, Interest::WRITABLE)
    }

    /// Tries `write` until it does something; between tries it listens for room.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&StdStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match uninterrupted(|| write(self.io.get_ref())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.full = None;
                    return Poll::Ready(done);
                }
            }
            if self.full.is_none() {
                self.full = Some(self.listen_for_room()?);
            }
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(cx))?.clear_ready();
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that could exchange their descriptor; a socket of std cannot"
)]
fn listen(stream: StdStream, interest: Interest) -> io::Result<AsyncFd<StdStream>> {
    AsyncFd::with_interest(stream, interest)
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl AsyncRead for QuietStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut guard = ready!(this.io.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match uninterrupted(|| this.io.get_ref().read(room)) {
                Ok(bytes) => {
                    if bytes > 0 && bytes < room.len() {
                        guard.clear_ready();
                    }
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for QuietStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_room(cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_room(cx, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.io.get_ref().shutdown(Shutdown::Write) {
            // The peer has gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests;
