use std::path::PathBuf;

use super::*;

struct Fixture {
    spec: WebhookSpec,
    intake: Intake,
    disk: Option<Disk>,
    folder: Option<PathBuf>,
    queue: Queue,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut WebhookSpec)) -> Fixture {
        let mut spec = WebhookSpec::default();
        change(&mut spec);
        Fixture {
            spec,
            intake: Intake::new(10, 1 << 20),
            disk: None,
            folder: None,
            queue: Queue::default(),
        }
    }

    fn on_disk(name: &str, change: impl FnOnce(&mut WebhookSpec)) -> Fixture {
        let folder =
            std::env::temp_dir().join(format!("ringcast-webhook-queue-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut fixture = Fixture::new(change);
        fixture.disk = Some(Disk::open(&folder).unwrap().0);
        fixture.folder = Some(folder);
        fixture
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Queue, &mut QueueStorage<'_>) -> T) -> T {
        let disk = self.disk.as_mut().map(|disk| {
            let number = disk.number_of("a");
            (disk, number)
        });
        let mut storage = QueueStorage {
            spec: &self.spec,
            intake: &self.intake,
            disk,
        };
        act(&mut self.queue, &mut storage)
    }

    fn push(&mut self, number: u64) -> Result<(), WebhookDrop> {
        let json = format!("{{\"n\":{number}}}").into_bytes().into();
        self.with(|queue, storage| queue.push(number, &json, storage))
    }

    /// The events of the next request.
    fn batch(&self) -> Vec<String> {
        let batch = self.queue.batch(&self.spec);
        batch
            .map(|waiting| String::from_utf8(waiting.json.to_vec()).unwrap())
            .collect()
    }

    /// Delivers all, request by request.
    fn deliver_all(&mut self) -> Vec<String> {
        let mut delivered = Vec::new();
        loop {
            self.with(|queue, storage| queue.refill(storage)).unwrap();
            let batch = self.batch();
            if batch.is_empty() {
                return delivered;
            }
            let through = self.queue.batch(&self.spec).last().unwrap().number;
            let count = self.with(|queue, storage| queue.pop_through(through, storage));
            assert_eq!(count, batch.len() as u64);
            delivered.extend(batch);
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn numbered(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("{{\"n\":{number}}}")).collect()
}

#[test]
fn a_full_queue_drops_new_events_and_the_next_one_tells_how_many() {
    let mut queue = Fixture::new(|spec| spec.queue_events = 3);
    for number in 1..=3 {
        assert_eq!(queue.push(number), Ok(()));
    }
    for number in 4..=6 {
        assert_eq!(queue.push(number), Err(WebhookDrop::QueueFull));
    }
    assert_eq!(queue.deliver_all(), numbered(1..=3));
    assert_eq!(queue.push(7), Ok(()));
    assert_eq!(queue.push(8), Ok(()));
    assert_eq!(
        queue.deliver_all(),
        [r#"{"dropped_before":3,"n":7}"#, r#"{"n":8}"#]
    );
    assert_eq!((queue.intake.held(), queue.queue.bytes()), (0, 0));
}

#[test]
fn bytes_are_bounded_for_one_webhook_and_for_all() {
    let mut queue = Fixture::new(|spec| spec.queue_bytes = 1024);
    let taken = (1..=100).take_while(|number| queue.push(*number).is_ok()).count();
    assert!((10..16).contains(&taken), "{taken}");
    assert_eq!(queue.queue.bytes(), queue.intake.held() as u64);
    assert_eq!(queue.deliver_all().len(), taken);
    // The others hold all: this one has a part of its own.
    let others = 1 << 20;
    queue.intake.hold(others);
    queue.spec.queue_bytes = 1 << 20;
    let taken = (1..).take_while(|number| queue.push(*number).is_ok()).count();
    assert!((40..64).contains(&taken), "{taken} of 4096 bytes");
    assert_eq!(queue.push(1), Err(WebhookDrop::Memory));
    queue.intake.release(others);
    assert_eq!(queue.push(1), Ok(()));
}

#[test]
fn a_request_has_no_more_events_and_bytes_than_it_may_but_one() {
    let mut queue = Fixture::new(|spec| (spec.batch_events, spec.batch_bytes) = (3, 20));
    for number in 1..=5 {
        queue.push(number).unwrap();
    }
    assert_eq!(queue.batch(), numbered(1..=2), "7 bytes each");
    assert!(queue.queue.has_full_batch(&queue.spec));
    queue.spec.batch_bytes = 1000;
    assert_eq!(queue.batch(), numbered(1..=3));
    queue.spec.batch_bytes = 1;
    assert_eq!(queue.batch(), numbered(1..=1), "a large event goes alone");
}

#[test]
fn events_that_are_too_old_are_dropped_and_the_next_one_tells() {
    let mut queue = Fixture::new(|_| {});
    for number in 1..=5 {
        queue.push(number).unwrap();
    }
    assert_eq!(queue.with(|queue, storage| queue.expire(4, storage)), 3);
    assert_eq!(queue.with(|queue, storage| queue.expire(4, storage)), 0);
    queue.push(6).unwrap();
    assert_eq!(queue.with(|queue, storage| queue.expire(5, storage)), 1);
    assert_eq!(
        queue.deliver_all(),
        [r#"{"dropped_before":4,"n":5}"#, r#"{"n":6}"#]
    );
    assert_eq!(queue.intake.held(), 0);
}

#[test]
fn what_does_not_fit_into_memory_waits_on_disk_in_order() {
    let mut queue = Fixture::on_disk("spill", |spec| spec.queue_bytes = 1024);
    for number in 1..=1000 {
        assert_eq!(queue.push(number), Ok(()));
    }
    assert!(queue.intake.held() <= 1024 && queue.queue.len() == 1000);
    assert_eq!(queue.deliver_all(), numbered(1..=1000));
    assert_eq!(
        (queue.queue.len(), queue.queue.bytes(), queue.intake.held()),
        (0, 0, 0)
    );
    queue.spec.disk_bytes = 1024;
    let taken = (1..=100).take_while(|number| queue.push(*number).is_ok()).count();
    assert!((10..16).contains(&taken), "{taken}");
}

#[test]
fn a_queue_begins_with_the_events_on_disk() {
    let mut queue = Fixture::on_disk("restart", |spec| spec.queue_bytes = 1024);
    for number in 1..=100 {
        queue.push(number).unwrap();
    }
    queue.disk.as_mut().unwrap().commit().unwrap();
    queue.disk = None;
    queue.queue = Queue::default();
    queue.intake = Intake::new(10, 1 << 20);
    // Before the file is open, events wait in memory.
    queue.push(101).unwrap();
    queue.push(102).unwrap();
    let (disk, found) = Disk::open(queue.folder.as_deref().unwrap()).unwrap();
    queue.disk = Some(disk);
    assert_eq!(
        queue.with(|queue, storage| queue.begin_with(&found[0].1, storage)),
        0
    );
    queue.push(103).unwrap();
    assert_eq!(queue.deliver_all(), numbered(1..=103));
    assert_eq!(queue.intake.held(), 0);
}
