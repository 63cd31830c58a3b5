//! Questions about publications that share a request (`batch_max`, `batch_wait_ms`).
//!
//! The first question of a batch starts the task that sends the batch ([`Hook`](super::hook::Hook)). Further questions
//! join until the batch is full, or until the task has waited `batch_wait_ms` and has its turn: so batches grow while
//! requests take long. A connection waits for its question, so that a batch holds one question of a connection at most,
//! and the order per connection is kept.
//!
//! The question belongs to the task that waits for its answer; a batch refers to it. If the time of a question is over
//! before the batch is sent, its memory is freed, and the batch leaves it out.
//!
//! Limits: `batch_max` questions, [`BATCH_BYTES_MAX`] bytes. A question of more bytes is a batch by itself.

#![expect(
    clippy::disallowed_types,
    reason = "the thread of the hooks alone locks them, never a core"
)]

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::hook::Failure;
use super::reply::Reply;

/// The batch of one hook that questions join.
#[derive(Debug)]
pub(super) struct Batches {
    count_max: usize,
    gathering: Mutex<Option<Arc<Batch>>>,
}

/// A batch that is not sent yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    gathered: Mutex<Gathered>,
    /// No question joins any more.
    full: Notify,
}

#[derive(Debug, Default)]
struct Gathered {
    questions: Vec<Joined>,
    bytes: usize,
}

/// A question of a batch.
#[derive(Debug)]
pub(super) struct Joined {
    /// Its JSON, while the question waits.
    pub(super) json: Weak<[u8]>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Answered>,
}

/// The end of a question. If a request fails, all of its questions fail.
pub(super) type Answered = Result<Reply, Arc<Failure>>;

impl Batches {
    /// For batches of so many questions; `None` if each question has a request of its own.
    pub(super) fn new(count_max: u32) -> Option<Batches> {
        (count_max > 1).then(|| Batches {
            count_max: count_max as usize,
            gathering: Mutex::default(),
        })
    }

    /// Puts a question into a batch. Returns the batch if it is a new one, which is to be sent.
    pub(super) fn join(&self, json: &Arc<[u8]>, question: Joined) -> Option<Arc<Batch>> {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = &*gathering {
            let mut gathered = batch.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            if gathered.bytes + json.len() <= BATCH_BYTES_MAX {
                gathered.bytes += json.len();
                gathered.questions.push(question);
                let is_full = gathered.questions.len() >= self.count_max;
                drop(gathered);
                if is_full {
                    batch.full.notify_one();
                    *gathering = None;
                }
                return None;
            }
        }
        let batch = Arc::new(Batch {
            gathered: Mutex::new(Gathered {
                questions: vec![question],
                bytes: json.len(),
            }),
            full: Notify::new(),
        });
        if let Some(before) = gathering.replace(Arc::clone(&batch)) {
            before.full.notify_one();
        }
        Some(batch)
    }

    /// The questions of a batch: no other joins it.
    pub(super) fn close(&self, batch: &Arc<Batch>) -> Vec<Joined> {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        if gathering.as_ref().is_some_and(|other| Arc::ptr_eq(other, batch)) {
            *gathering = None;
        }
        let mut gathered = batch.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut gathered.questions)
    }
}

impl Batch {
    /// Waits until no question joins any more.
    pub(super) async fn filled(&self) {
        self.full.notified().await;
    }
}

/// The body of a request with these questions.
pub(super) fn body(questions: &[Arc<[u8]>]) -> Vec<u8> {
    let bytes: usize = questions.iter().map(|json| json.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 1);
    for (index, json) in questions.iter().enumerate() {
        body.push(if index == 0 { b'[' } else { b',' });
        body.extend_from_slice(json);
    }
    body.push(b']');
    body
}

/// Most bytes of the questions of one request: half of the limit on an answer, which has their data again if the
/// target rewrites it.
const BATCH_BYTES_MAX: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(bytes: usize) -> (Arc<[u8]>, Joined) {
        let json: Arc<[u8]> = vec![b'1'; bytes].into();
        let joined = Joined {
            json: Arc::downgrade(&json),
            deadline: Instant::now(),
            answer: oneshot::channel().0,
        };
        (json, joined)
    }

    fn is_full(batch: &Batch) -> bool {
        use std::task::{Context, Poll, Waker};
        let filled = std::pin::pin!(batch.filled());
        filled.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_batch_is_full_by_its_count_or_by_its_bytes_and_then_another_one_begins() {
        let batches = Batches::new(3).unwrap();
        let join = |bytes| {
            let (json, joined) = question(bytes);
            batches.join(&json, joined)
        };
        let first = join(1).unwrap();
        assert!(join(1).is_none() && !is_full(&first));
        assert!(join(1).is_none() && is_full(&first));
        let large = join(BATCH_BYTES_MAX + 1).unwrap();
        assert!(!is_full(&large));
        let third = join(BATCH_BYTES_MAX - 1).unwrap();
        assert!(is_full(&large));
        assert!(join(1).is_none() && !is_full(&third));
        let fourth = join(1).unwrap();
        assert!(is_full(&third));
        let counts = [&first, &large, &third, &fourth].map(|batch| batches.close(batch).len());
        assert_eq!(counts, [3, 1, 2, 1]);
        assert!(join(1).is_some(), "the fourth was closed");
        assert!(Batches::new(1).is_none());
    }

    #[test]
    fn to_close_a_full_batch_leaves_the_next_one_open() {
        let batches = Batches::new(2).unwrap();
        let join = |bytes| {
            let (json, joined) = question(bytes);
            batches.join(&json, joined)
        };
        let full = join(1).unwrap();
        assert!(join(1).is_none());
        let next = join(1).unwrap();
        assert_eq!(batches.close(&full).len(), 2);
        assert!(join(1).is_none());
        assert_eq!(batches.close(&next).len(), 2);
    }

    #[test]
    fn a_body_is_an_array_of_the_questions() {
        let questions: Vec<Arc<[u8]>> = [&b"{\"a\":1}"[..], b"2", b"3"].map(Arc::from).to_vec();
        assert_eq!(body(&questions), b"[{\"a\":1},2,3]");
        assert_eq!(body(&questions[..1]), b"[{\"a\":1}]");
    }
}
