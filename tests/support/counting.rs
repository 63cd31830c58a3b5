//! A server in this process that counts the allocations of its cores, and of no other thread.
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mimalloc::MiMalloc;
use ringcast::app::{AllowedPublish, App, Call, CallAnswer, Name, Peer, Refusal, Upgrade, UpgradeRefused};
use ringcast::config::{Config, Placement};
use ringcast::server::{Descriptors, Embedding, Server};

/// The allocations of all cores so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Allocations and reallocations.
    pub(crate) allocations: u64,
    /// Bytes allocated and not freed. Only differences are meaningful, because cores also free memory of other threads.
    pub(crate) live_bytes: i64,
}

/// The allocations of all cores so far.
pub(crate) fn asked() -> Asked {
    Asked {
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
        live_bytes: LIVE_BYTES.load(Ordering::Relaxed),
    }
}

/// Starts a server on a free port. Each core counts from its first connection on.
pub(crate) fn start<A: App + Send + 'static>(
    cores: u16,
    change: impl FnOnce(&mut Config),
    mut app: impl FnMut() -> A,
) -> Server {
    let mut config = Config::default();
    config.cores.placement = Placement::Count(cores);
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = None;
    change(&mut config);
    let embedding = Embedding {
        descriptors: Descriptors::OfCores { kept: Vec::new() },
        ..Embedding::default()
    };
    Server::start(&config, embedding, |_| Counted(app())).expect("this machine can run a server")
}

/// An application that makes its thread count.
struct Counted<A>(A);

impl<A: App> App for Counted<A> {
    fn upgrade(&mut self, _request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        count_this_thread(true);
        Ok(())
    }

    fn publish_bytes(
        &mut self,
        topic: Name<'_>,
        payload: &[u8],
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        self.0.publish_bytes(topic, payload, peer)
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        self.0.invoke(call, peer)
    }

    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        self.0.transmit(call, peer);
    }
}

/// Starts or stops counting the allocations of the calling thread.
pub(crate) fn count_this_thread(is_counted: bool) {
    IS_COUNTED.set(is_counted);
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Relaxed: the test reads them after the cores have answered, when they are idle.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count(allocations: u64, freed: usize, allocated: usize) {
    if IS_COUNTED.get() {
        let signed = |bytes| i64::try_from(bytes).expect("a layout is below half the address space");
        ALLOCATIONS.fetch_add(allocations, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(signed(allocated) - signed(freed), Ordering::Relaxed);
    }
}

// SAFETY: all calls go to the binary's allocator with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0, layout.size());
        // SAFETY: the caller fulfils the same duties.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0, layout.size());
        // SAFETY: the caller fulfils the same duties.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, layout.size(), size);
        // SAFETY: the caller fulfils the same duties.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size(), 0);
        // SAFETY: the caller fulfils the same duties.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}
