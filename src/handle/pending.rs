//! An operation of a handle that is under way: awaited in asynchronous code, or waited for by a thread.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::error::HandleError;
use crate::cores;

/// An operation of a [`Handle`](super::Handle). It begins when it is first polled: `.await` it, on any runtime, or call
/// [`Pending::wait`] on a thread that may block. An operation that is dropped before its end may be done or not.
#[must_use = "the operation begins when it is awaited, or with `wait`"]
pub struct Pending<T>(Pin<Box<dyn Future<Output = Result<T, HandleError>> + Send>>);

impl<T> Pending<T> {
    /// The operation that `work` does, unless it begins on the thread of a core.
    pub(super) fn new(work: impl Future<Output = Result<T, HandleError>> + Send + 'static) -> Pending<T> {
        Pending(Box::pin(async {
            if cores::is_core_thread() {
                return Err(HandleError::OnCore);
            }
            work.await
        }))
    }

    /// Blocks the thread until the operation is done. Every operation has a time limit.
    ///
    /// # Errors
    /// As the operation.
    pub fn wait(self) -> Result<T, HandleError> {
        block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, HandleError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Blocks the thread until the work is done.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park();
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
