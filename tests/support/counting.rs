//! A server in this process whose cores' allocations are counted, and nobody else's.
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ringcast::app::builtin::Builtin;
use ringcast::app::{Answer, App, Call, Peer, Upgrade, UpgradeRefused};
use ringcast::config::{Config, Cores};
use ringcast::server::{Embedding, Server};

/// What the cores have asked the allocator for so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Allocations and reallocations.
    pub(crate) allocations: u64,
    /// Bytes allocated and not freed; only differences mean something, since cores also free what others allocated.
    pub(crate) live_bytes: i64,
}

/// What the cores have asked for so far.
pub(crate) fn asked() -> Asked {
    Asked {
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
        live_bytes: LIVE_BYTES.load(Ordering::Relaxed),
    }
}

/// Starts a server on a free port. A core is counted from its first connection on.
pub(crate) fn start(cores: u16, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        cores: Cores::Count(cores),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin: None,
        ..Config::default()
    };
    change(&mut config);
    Server::start(&config, Embedding::default(), |_| Counted(Builtin::new()))
        .expect("this machine can run a server")
}

/// The application of the binary, on a thread that is counted.
struct Counted(Builtin);

impl App for Counted {
    fn upgrade(&mut self, _request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        IS_CORE.set(true);
        Ok(())
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> Answer {
        self.0.invoke(call, peer)
    }

    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        self.0.transmit(call, peer);
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Relaxed: the test reads them when the cores have answered and have nothing to do.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_CORE: Cell<bool> = const { Cell::new(false) };
}

fn count(allocations: u64, freed: usize, allocated: usize) {
    if IS_CORE.get() {
        let signed = |bytes| i64::try_from(bytes).expect("a layout is below half the address space");
        ALLOCATIONS.fetch_add(allocations, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(signed(allocated) - signed(freed), Ordering::Relaxed);
    }
}

// SAFETY: all is the system's allocator's doing, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0, layout.size());
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0, layout.size());
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, layout.size(), size);
        // SAFETY: the caller's duties are the same.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size(), 0);
        // SAFETY: the caller's duties are the same.
        unsafe { System.dealloc(block, layout) }
    }
}
