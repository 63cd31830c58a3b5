//! Orders from the control plane to a core, and what the core lets others know.
//!
//! Rare by nature: a bounded crossbeam channel, and the core's waker after each order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::Waker;

use crate::metrics::block::CoreMetrics;

/// What a core may be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept no more, close every client within this time, then stop.
    Drain {
        /// Clients are closed one after the other over this time.
        within: Duration,
    },
    /// Drop what is left, now.
    Stop,
}

/// Where a core is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CoreStatus {
    /// Not listening yet.
    Starting,
    /// Accepting and serving.
    Serving,
    /// Closing its clients.
    Draining,
    /// Its thread has ended, or is about to.
    Stopped,
}

/// The far end of one core, for the control plane.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    metrics: Arc<CoreMetrics>,
    status: Arc<Status>,
}

/// The near end.
#[derive(Debug)]
pub(crate) struct Mailbox {
    orders: Receiver<Order>,
    metrics: Arc<CoreMetrics>,
    status: Arc<Status>,
}

/// Written by the core, read by the control plane. Release and acquire: who sees `Serving` also sees the listener.
#[derive(Debug)]
struct Status(AtomicU8);

/// A mailbox and its far end; `waker` belongs to the poll of the core.
pub(crate) fn mailbox(waker: Arc<Waker>) -> (CoreHandle, Mailbox) {
    let (sender, orders) = bounded(ORDERS_WAITING_MAX);
    let metrics = Arc::new(CoreMetrics::default());
    let status = Arc::new(Status(AtomicU8::new(CoreStatus::Starting as u8)));
    let handle = CoreHandle {
        orders: sender,
        waker,
        metrics: Arc::clone(&metrics),
        status: Arc::clone(&status),
    };
    (
        handle,
        Mailbox {
            orders,
            metrics,
            status,
        },
    )
}

impl CoreHandle {
    /// Gives an order and wakes the core. Fails if the core has ended, or has not taken the orders before.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::from(io::ErrorKind::WouldBlock),
            TrySendError::Disconnected(_) => io::Error::from(io::ErrorKind::BrokenPipe),
        })?;
        self.waker.wake()
    }

    /// The core's counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Where the core is in its life.
    pub fn status(&self) -> CoreStatus {
        match self.status.0.load(Ordering::Acquire) {
            status if status == CoreStatus::Starting as u8 => CoreStatus::Starting,
            status if status == CoreStatus::Serving as u8 => CoreStatus::Serving,
            status if status == CoreStatus::Draining as u8 => CoreStatus::Draining,
            _ => CoreStatus::Stopped,
        }
    }
}

impl Mailbox {
    /// The next order, if there is one.
    pub(crate) fn try_receive(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// The block this core writes.
    pub(super) fn metrics(&self) -> Arc<CoreMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Lets others know.
    pub(crate) fn set_status(&self, status: CoreStatus) {
        self.status.0.store(status as u8, Ordering::Release);
    }
}

/// More orders than a control plane gives before it looks at the answer.
const ORDERS_WAITING_MAX: usize = 16;
