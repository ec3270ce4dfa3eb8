//! The byte stream of one session: a TCP socket, or any other stream behind the same calls.
//!
//! Shards write to a session's stream without waiting, and its task waits for what the stream did not take. A TCP
//! socket offers both by itself. Of any other stream (TLS, one that an HTTP server gave up) only one waker is known
//! to it, which tells the session's task that it is worth a try again.

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A stream of bytes of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The byte stream of one session.
pub(crate) enum Socket {
    Tcp(TcpStream),
    /// Boxed, so that a session over plain TCP is no bigger for it.
    Other(Box<Layered>),
}

/// A stream that can only be polled.
pub(crate) struct Layered {
    io: Mutex<Box<dyn Io>>,
    signal: Arc<Signal>,
    waker: Waker,
    /// The stream took bytes that may not have left it.
    unflushed: AtomicBool,
}

/// What the stream says when it can go on; it does not say in which direction.
struct Signal {
    task: AtomicWaker,
    readable: AtomicBool,
    writable: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.readable.store(true, Ordering::Release);
        self.writable.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Socket {
    /// Wraps a stream that is no TCP socket.
    pub(crate) fn other(io: impl Io + 'static) -> Self {
        let signal = Arc::new(Signal {
            task: AtomicWaker::new(),
            readable: AtomicBool::new(true),
            writable: AtomicBool::new(true),
        });
        let waker = Waker::from(signal.clone());
        let unflushed = AtomicBool::new(false);
        Self::Other(Box::new(Layered { io: Mutex::new(Box::new(io)), signal, waker, unflushed }))
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Other(layered) => layered.read(buffer),
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Other(layered) => layered.write(|io, cx| io.poll_write(cx, bytes)),
        }
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            // One buffer is cheaper to send than a list of one.
            Self::Tcp(stream) => match slices {
                [only] => stream.try_write(only),
                _ => stream.try_write_vectored(slices),
            },
            Self::Other(layered) => layered.write(|io, cx| io.poll_write_vectored(cx, slices)),
        }
    }

    /// Whether all that was written has left the process.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Other(layered) => !layered.unflushed.load(Ordering::Acquire),
        }
    }

    /// Waits until a read is worth a try.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Other(layered) => layered.poll_signal(cx, &layered.signal.readable),
        }
    }

    /// Waits until a write is worth a try.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Other(layered) => layered.poll_signal(cx, &layered.signal.writable),
        }
    }

    /// Waits until all that was written has left the process.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other(layered) => {
                layered.signal.task.register(cx.waker());
                layered.flush(&mut layered.io.lock())
            }
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write)),
            Self::Other(layered) => {
                layered.signal.task.register(cx.waker());
                Pin::new(&mut **layered.io.lock()).poll_shutdown(&mut layered.context())
            }
        }
    }
}

impl Layered {
    /// Whatever the stream waits for, it wakes the session's task through the one waker that it ever sees.
    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    fn poll_signal(&self, cx: &mut Context<'_>, flag: &AtomicBool) -> Poll<io::Result<()>> {
        self.signal.task.register(cx.waker());
        if flag.swap(false, Ordering::AcqRel) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(buffer);
        match Pin::new(&mut **self.io.lock()).poll_read(&mut self.context(), &mut into) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(result) => {
                // There may be more, and the stream wakes nobody for what it holds already.
                self.signal.readable.store(true, Ordering::Release);
                result.map(|()| into.filled().len())
            }
        }
    }

    fn write(
        &self,
        write: impl FnOnce(Pin<&mut dyn Io>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let mut io = self.io.lock();
        match write(Pin::new(&mut **io), &mut self.context()) {
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(result) => {
                let written = result?;
                // It may take more at once: only a write that waits is waited for.
                self.signal.writable.store(true, Ordering::Release);
                match self.flush(&mut io) {
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Ready(Ok(())) | Poll::Pending => Ok(written),
                }
            }
        }
    }

    fn flush(&self, io: &mut Box<dyn Io>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut **io).poll_flush(&mut self.context());
        self.unflushed.store(flushed.is_pending(), Ordering::Release);
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::Socket;
    use std::future::poll_fn;
    use std::io::{self, IoSlice};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
    use tokio::net::TcpStream;

    #[test]
    fn a_plain_session_pays_nothing_for_other_streams() {
        assert_eq!(size_of::<Socket>(), size_of::<TcpStream>());
    }

    #[tokio::test]
    async fn what_another_stream_does_not_take_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(8);
        let socket = Socket::other(near);
        assert_eq!(socket.try_write(b"12345").unwrap(), 5);
        assert_eq!(socket.try_write_vectored(&[IoSlice::new(b"67890")]).unwrap(), 3);
        assert_eq!(socket.try_write(b"90").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        while socket.try_write(b"90").is_err() {
            poll_fn(|cx| socket.poll_write_ready(cx)).await.unwrap();
        }
        poll_fn(|cx| socket.poll_shutdown(cx)).await.unwrap();
        drop(socket);
        assert_eq!(reader.await.unwrap(), b"1234567890");
    }

    #[tokio::test]
    async fn what_another_stream_still_holds_is_flushed() {
        let (near, mut far) = tokio::io::duplex(4);
        let socket = Socket::other(BufWriter::new(near));
        assert_eq!(socket.try_write(b"1234567").unwrap(), 7);
        assert!(!socket.is_flushed());
        let reader = tokio::spawn(async move {
            let mut all = [0; 7];
            far.read_exact(&mut all).await.unwrap();
            far.write_all(b"ok").await.unwrap();
            all
        });
        poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
        assert!(socket.is_flushed());
        assert_eq!(&reader.await.unwrap(), b"1234567");
        let mut answer = [0; 8];
        let read = loop {
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            match socket.try_read(&mut answer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(&answer[..read], b"ok");
    }
}
