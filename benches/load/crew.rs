//! Drivers, each on a thread of its own with a descriptor table of its own, working on one plan.
//!
//! Between plans every thread keeps its connections alive. A plan is begun and finished in two steps, so that two
//! crews can be busy at once: the connected and those that storm in, healthy readers and slow ones.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mio::Waker;
use nix::sched::{CloneFlags, unshare};

use super::crowd::Crowd;
use super::driver::{Driver, Gauges, Share, Target};
use super::machine;
use super::order::Digest;
use super::plan::{Opening, Plan, Until};
use super::result::Faults;
use super::tally::{Digests, Tally, Times};

/// Threads with clients of one crowd.
pub(crate) struct Crew {
    crowd: Arc<Crowd>,
    members: Vec<Member>,
    seconds: Receiver<Times>,
}

struct Member {
    commands: Sender<Command>,
    answers: Receiver<io::Result<Answer>>,
    waker: Arc<Waker>,
    gauges: Arc<Gauges>,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Run(Plan),
    RunFirst,
    DropAll,
    Verify,
    End,
}

enum Answer {
    Ran(Box<Tally>),
    RunsFirst(bool),
    Dropped,
    Verified { digests: Digests, behind: Vec<String> },
}

impl Crew {
    /// Starts as many threads, pinned to `cpus` in turn; `first_thread` tells crews of one process apart.
    pub(crate) fn start(
        target: &Target,
        crowd: Crowd,
        threads: u32,
        cpus: &[usize],
        first_thread: u32,
    ) -> io::Result<Crew> {
        let crowd = Arc::new(crowd);
        let (tell_second, seconds) = bounded(SECONDS_WAITING_MAX);
        // All are made before the first thread begins: a table that is split off holds every waker.
        let mut drivers = (0..threads)
            .map(|thread| {
                let share = Share {
                    first: thread,
                    step: threads,
                };
                Driver::new(target, Arc::clone(&crowd), share, first_thread + thread)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let publishing: Vec<_> = drivers
            .iter()
            .map(|driver| driver.publishes().then(|| driver.waker()))
            .collect();
        for (index, driver) in drivers.iter_mut().enumerate() {
            driver.reports_to(tell_second.clone());
            driver.wakes(
                publishing
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .filter_map(|(_, waker)| waker.clone())
                    .collect(),
            );
        }
        let members = drivers
            .into_iter()
            .enumerate()
            .map(|(index, driver)| {
                let index = first_thread as usize + index;
                Member::start(driver, index, cpus[index % cpus.len()])
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Crew {
            crowd,
            members,
            seconds,
        })
    }

    pub(crate) fn gauges(&self) -> impl Iterator<Item = &Arc<Gauges>> {
        self.members.iter().map(|member| &member.gauges)
    }

    /// The latencies of each thread's last second.
    pub(crate) fn seconds(&self) -> &Receiver<Times> {
        &self.seconds
    }

    /// Begins a plan, whose rates and counts are of all threads together (but for `Publishing`, which is of a
    /// publisher).
    pub(crate) fn begin(&self, plan: &Plan) -> io::Result<()> {
        let threads = self.members.len();
        for member in &self.members {
            member.tell(Command::Run(part(plan, threads)))?;
        }
        Ok(())
    }

    /// Waits for what was begun; `meanwhile` is called every now and then.
    pub(crate) fn finish(&self, mut meanwhile: impl FnMut()) -> io::Result<Tally> {
        let mut all = Tally::new();
        for member in &self.members {
            if let Answer::Ran(tally) = member.answer(&mut meanwhile)? {
                all.merge(&tally);
            }
        }
        Ok(all)
    }

    /// Ends a plan that lasts until it is told to end.
    pub(crate) fn enough(&self) -> io::Result<()> {
        for member in &self.members {
            member.enough.store(true, Ordering::Relaxed);
            member.waker.wake()?;
        }
        Ok(())
    }

    /// Has its threads run before those of other crews where they share a CPU; false if the system does not allow it.
    pub(crate) fn run_first(&self) -> io::Result<bool> {
        for member in &self.members {
            member.tell(Command::RunFirst)?;
        }
        let mut all = true;
        for member in &self.members {
            all &= matches!(member.answer(&mut || ())?, Answer::RunsFirst(true));
        }
        Ok(all)
    }

    /// Drops all connections at once.
    pub(crate) fn drop_all(&self) -> io::Result<()> {
        for member in &self.members {
            member.tell(Command::DropAll)?;
        }
        for member in &self.members {
            member.answer(&mut || ())?;
        }
        Ok(())
    }

    /// Whether every subscriber received exactly what was published to its channel, in one order on all threads.
    pub(crate) fn verify(&self) -> io::Result<Faults> {
        let mut faults = Faults::default();
        for member in &self.members {
            member.tell(Command::Verify)?;
        }
        let mut orders: HashMap<u32, Digest> = HashMap::new();
        for member in &self.members {
            let Answer::Verified { digests, behind } = member.answer(&mut || ())? else {
                continue;
            };
            for text in behind {
                faults.add(|| text);
            }
            for (channel, digest) in digests {
                let first = *orders.entry(channel).or_insert(digest);
                if first != digest {
                    faults.add(|| {
                        format!("channel {channel}: two threads received other publications or another order")
                    });
                }
            }
        }
        let missing = self.crowd.missing();
        if missing > 0 {
            faults.add(|| format!("{missing} deliveries are missing"));
        }
        Ok(faults)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that has ended already is not there to be told.
            let _ = member.tell(Command::End);
            if let Some(thread) = member.thread.take() {
                // What it panicked with was printed.
                let _ = thread.join();
            }
        }
    }
}

impl Member {
    fn start(driver: Driver, index: usize, cpu: usize) -> io::Result<Member> {
        let (commands, receive) = bounded(1);
        let (answer, answers) = bounded(1);
        let (waker, gauges) = (driver.waker(), Arc::clone(&driver.gauges));
        let enough = Arc::clone(&driver.enough);
        let thread = thread::Builder::new()
            .name(format!("load {index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || serve(driver, cpu, &receive, &answer))?;
        Ok(Member {
            commands,
            answers,
            waker,
            gauges,
            enough,
            thread: Some(thread),
        })
    }

    fn tell(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(io::Error::other)?;
        self.waker.wake()
    }

    fn answer(&self, meanwhile: &mut impl FnMut()) -> io::Result<Answer> {
        loop {
            match self.answers.recv_timeout(MEANWHILE) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => meanwhile(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a thread of the generator has ended"));
                }
            }
        }
    }
}

fn serve(mut driver: Driver, cpu: usize, commands: &Receiver<Command>, answers: &Sender<io::Result<Answer>>) {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    // Where a container forbids it, the limit on open files is for all threads together, and shows itself when it is hit.
    let _ = unshare(CloneFlags::CLONE_FILES);
    loop {
        let held = driver.hold(|| commands.is_empty());
        let Ok(command) = commands.recv() else { return };
        let answer = held.and_then(|()| match command {
            Command::Run(plan) => driver.run(&plan).map(|tally| Some(Answer::Ran(Box::new(tally)))),
            Command::RunFirst => Ok(Some(Answer::RunsFirst(machine::run_first()))),
            Command::DropAll => {
                driver.drop_all();
                Ok(Some(Answer::Dropped))
            }
            Command::Verify => Ok(Some(Answer::Verified {
                digests: driver.digests(),
                behind: driver.behind(),
            })),
            Command::End => Ok(None),
        });
        match answer.transpose() {
            // Nobody waits for the answer of a crew that was given up.
            Some(answer) => drop(answers.send(answer)),
            None => return,
        }
    }
}

/// One thread's part of a plan.
fn part(plan: &Plan, threads: usize) -> Plan {
    let share = threads as f64;
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    Plan {
        opening: plan.opening.map(|opening| Opening {
            per_second: opening.per_second.map(|rate| rate / share),
            pending_max: opening.pending_max.div_ceil(threads),
            ..opening
        }),
        until: match plan.until {
            Until::Messages(count) => Until::Messages(count.div_ceil(threads.into())),
            other => other,
        },
        ..plan.clone()
    }
}

const SECONDS_WAITING_MAX: usize = 4096;
const MEANWHILE: Duration = Duration::from_millis(20);
/// A driver's stack is shallow; a hundred threads of the usual 2 MiB would be no matter either, being untouched.
const STACK_BYTES: usize = 256 * 1024;
