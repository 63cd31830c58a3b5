//! A crew: drivers that work on one plan, each on a thread with a descriptor table of its own.
//!
//! Between plans every thread keeps its connections alive. Beginning and finishing a plan are separate steps, so that
//! two crews can be busy at once: connected clients and a storm of new ones, healthy readers and slow ones.

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
    /// Starts the threads, pinned to `cpus` in turn. `first_thread` distinguishes the crews of one process.
    pub(crate) fn start(
        target: &Target,
        crowd: Crowd,
        threads: u32,
        cpus: &[usize],
        first_thread: u32,
    ) -> io::Result<Crew> {
        let crowd = Arc::new(crowd);
        let (tell_second, seconds) = bounded(SECONDS_WAITING_MAX);
        // Make all drivers before the first thread starts: its own descriptor table then contains every waker.
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

    /// Receives the latencies of each thread, once a second.
    pub(crate) fn seconds(&self) -> &Receiver<Times> {
        &self.seconds
    }

    /// Begins a plan. Its rates and counts are for all threads together, except those of `Publishing`, which are for
    /// each publisher.
    pub(crate) fn begin(&self, plan: &Plan) -> io::Result<()> {
        let threads = self.members.len();
        for member in &self.members {
            member.tell(Command::Run(part(plan, threads)))?;
        }
        Ok(())
    }

    /// Waits until the plan is finished; calls `meanwhile` now and then.
    pub(crate) fn finish(&self, mut meanwhile: impl FnMut()) -> io::Result<Tally> {
        let mut all = Tally::new();
        for member in &self.members {
            if let Answer::Ran(tally) = member.answer(&mut meanwhile)? {
                all.merge(&tally);
            }
        }
        Ok(all)
    }

    /// Ends a plan without an end of its own.
    pub(crate) fn enough(&self) -> io::Result<()> {
        for member in &self.members {
            member.enough.store(true, Ordering::Relaxed);
            member.waker.wake()?;
        }
        Ok(())
    }

    /// Gives its threads priority over the threads of other crews on the same CPU; false if the system does not allow
    /// it.
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

    /// Checks that every subscriber has received all publications of its channel, in the same order on all threads.
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
            // A thread that has ended already receives nothing.
            let _ = member.tell(Command::End);
            if let Some(thread) = member.thread.take() {
                // If the thread panicked, the message was printed.
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
    // If a container forbids the call, the limit on open files counts for all threads together, and an error shows it.
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
            // Sending fails if the crew was dropped; then nobody needs the answer.
            Some(answer) => drop(answers.send(answer)),
            None => return,
        }
    }
}

/// The part of a plan for one thread.
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
/// Stack of a driver's thread, which needs little. (A hundred threads with the usual 2 MiB would also work: untouched
/// stack takes no memory.)
const STACK_BYTES: usize = 256 * 1024;
