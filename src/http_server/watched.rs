//! A connection's stream and answers, watched for a peer that does not read.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use super::house::{Phase, Visit};

/// Bytes that are read at once. hyper's buffers grow with it, and there are hundreds of them.
const READ_BYTES: u64 = 8 * 1024;

/// A stream that notes when its peer takes nothing of what is written.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: Take<S>,
    visit: Arc<Visit>,
}

impl<S: AsyncRead> Watched<S> {
    pub(super) fn new(stream: S, visit: Arc<Visit>) -> Self {
        Self { stream: stream.take(READ_BYTES), visit }
    }
}

impl<S> Watched<S> {
    fn note<T>(&self, context: &Context<'_>, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.visit.stalled();
        } else if self.visit.moved() {
            context.waker().wake_by_ref();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.set_limit(READ_BYTES);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write(context, bytes);
        self.note(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(context, bytes);
        self.note(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(context)
    }
}

/// A request in progress, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InProgress(Arc<Visit>);

impl InProgress {
    pub(super) fn begin(visit: &Arc<Visit>) -> Self {
        visit.enter(Phase::Unverified);
        Self(Arc::clone(visit))
    }

    pub(super) fn visit(&self) -> &Visit {
        &self.0
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// The body of an answer. While there is more of it, the request is in progress.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _request: InProgress,
}

impl<B> Answer<B> {
    pub(super) const fn new(body: B, request: InProgress) -> Self {
        Self { body, _request: request }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
