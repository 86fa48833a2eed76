//! Arrivals that wait for a worker: none twice, each project in its turn.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use crate::record::Record;

/// How many arrivals may wait before those that were found by looking have to wait for room; a look begins anew at any time.
const ROOM_FOR_FOUND: usize = 10_000;
/// How many arrivals may wait at all. Beyond, an arrival is refused, and its drop directory has to be looked at.
const ROOM: usize = 200_000;
/// How long until a file that somebody is writing is looked at again, should no event tell of its end.
const PAUSE: Duration = Duration::from_millis(500);
/// How often in a row a file that changes under the worker's hands is read again at once.
const RACES: u32 = 3;
/// The first and the longest pause before a failure that may pass is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A path that may be an artifact's: a drop directory and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The drop directory's root.
    pub root: PathBuf,
    /// The path below it.
    pub relative: PathBuf,
}

impl Arrival {
    /// The absolute path.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.relative)
    }
}

/// Learns what became of an arrival.
pub trait Waiter: Send + Sync {
    /// The artifact has an outcome; without one, it is gone or was none.
    fn settled(&self, arrival: &Arrival, record: Option<&Record>);
}

/// What is to happen to an arrival that a worker has worked on.
#[derive(Debug)]
pub enum Next {
    /// It has an outcome, or is none any more.
    Done(Option<Record>),
    /// It has an outcome that may pass, so that it is tried again.
    Retry(Record),
    /// It is read again at once.
    Again,
    /// Its writer has not finished.
    BeingWritten,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why an arrival is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Why {
    /// An event told of it, or a look found it.
    #[default]
    Told,
    /// It is time to try again, or somebody waits for it.
    Due,
}

/// An arrival that a worker works on.
#[derive(Debug)]
pub struct Job {
    /// The arrival.
    pub arrival: Arrival,
    /// Why it is worked on.
    pub why: Why,
    /// When it came.
    pub since: Instant,
}

/// What waits, for a status report.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    /// How many arrivals wait for a worker or are being worked on.
    pub queued: usize,
    /// How many wait for their writer.
    pub being_written: usize,
    /// How long the oldest of all has waited.
    pub oldest: Option<Duration>,
}

#[derive(Default)]
struct Known {
    state: State,
    why: Why,
    /// How many directories below the root name its project.
    depth: usize,
    since: Option<Instant>,
    /// It arrived again while it was worked on.
    again: Again,
    /// How often in a row it had to be read again.
    races: u32,
    failures: u32,
    /// When a failure is tried again.
    due: Option<Instant>,
    waiters: Vec<Weak<dyn Waiter>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Queued,
    Working,
    /// Waits for its writer, or for the time of its next try, which the token of this number brings.
    Parked(Parked, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    BeingWritten,
    Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Again {
    #[default]
    No,
    Yes(Why),
}

/// A project's place in the queue: the directories of the path that name it.
type Lane = (PathBuf, PathBuf);

#[derive(Default)]
struct Inner {
    known: HashMap<Arrival, Known>,
    lanes: HashMap<Lane, VecDeque<Arrival>>,
    turns: VecDeque<Lane>,
    queued: usize,
    tokens: BinaryHeap<Reverse<(Instant, u64)>>,
    parked: HashMap<u64, Arrival>,
    next_number: u64,
    closed: bool,
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// Adds an arrival of which an event told. One that waits already is not added again; one that is being worked on is worked
    /// on once more.
    ///
    /// # Errors
    /// [`Full`]: the arrival is not taken, and its drop directory has to be looked at later.
    pub fn push(&self, arrival: Arrival, depth: usize) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.known.len() >= ROOM && !inner.known.contains_key(&arrival) {
            return Err(Full);
        }
        inner.add(arrival, depth, Why::Told, None);
        self.work.notify_one();
        Ok(())
    }

    /// Adds an arrival that was found by looking, once there is room. `waiter` learns its outcome.
    pub fn push_found(&self, arrival: Arrival, depth: usize, waiter: Option<Weak<dyn Waiter>>) {
        let mut inner = self.lock();
        while inner.queued >= ROOM_FOR_FOUND && !inner.closed {
            inner = self
                .room
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let why = match waiter {
            Some(_) => Why::Due,
            None => Why::Told,
        };
        inner.add(arrival, depth, why, waiter);
        self.work.notify_one();
    }

    /// The next arrival, each project in its turn; waits for one. `None` once the queue is closed.
    pub fn next(&self) -> Option<Job> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            let now = Instant::now();
            if inner.unpark(now) > 1 {
                self.work.notify_all();
            }
            if let Some(job) = inner.take(now) {
                if inner.queued < ROOM_FOR_FOUND {
                    self.room.notify_all();
                }
                return Some(job);
            }
            inner = match inner.tokens.peek() {
                Some(Reverse((due, _))) => {
                    let pause = due.saturating_duration_since(now);
                    self.work
                        .wait_timeout(inner, pause)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .work
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Says what a worker has found of an arrival that [`Queue::next`] answered.
    pub fn done(&self, arrival: &Arrival, next: Next) {
        let mut inner = self.lock();
        let Some(known) = inner.known.get_mut(arrival) else {
            return;
        };
        if let Again::Yes(why) = std::mem::take(&mut known.again) {
            known.why = why;
            inner.queue(arrival.clone());
            self.work.notify_one();
            return;
        }
        match next {
            Next::Again => {
                known.races = known.races.saturating_add(1);
                if known.races < RACES {
                    known.why = Why::Due;
                    inner.queue(arrival.clone());
                } else {
                    inner.park(
                        arrival.clone(),
                        Parked::BeingWritten,
                        Instant::now() + PAUSE,
                    );
                }
                self.work.notify_one();
            }
            Next::BeingWritten => {
                inner.park(
                    arrival.clone(),
                    Parked::BeingWritten,
                    Instant::now() + PAUSE,
                );
                self.work.notify_one();
            }
            Next::Retry(record) => {
                let waiters = std::mem::take(&mut known.waiters);
                let now = Instant::now();
                // An event that brought no other content does not move the time of the next try.
                let due = match known.due.filter(|due| known.why == Why::Told && *due > now) {
                    Some(due) => due,
                    None => {
                        known.failures = known.failures.saturating_add(1);
                        let (first, longest) = RETRY;
                        let pause =
                            first.saturating_mul(1 << known.failures.min(10).saturating_sub(1));
                        now + pause.min(longest)
                    }
                };
                known.races = 0;
                known.due = Some(due);
                inner.park(arrival.clone(), Parked::Retry, due);
                self.work.notify_one();
                drop(inner);
                tell(&waiters, arrival, Some(&record));
            }
            Next::Done(record) => {
                let waiters = inner
                    .known
                    .remove(arrival)
                    .map_or(Vec::new(), |known| known.waiters);
                drop(inner);
                tell(&waiters, arrival, record.as_ref());
            }
        }
    }

    /// What waits at or below `path`.
    pub fn waiting_below(&self, path: &Path) -> Waiting {
        let inner = self.lock();
        let mut waiting = Waiting::default();
        let now = Instant::now();
        for (arrival, known) in &inner.known {
            if !arrival.root.starts_with(path) && !arrival.path().starts_with(path) {
                continue;
            }
            match known.state {
                State::Queued | State::Working => waiting.queued += 1,
                State::Parked(Parked::BeingWritten, _) => waiting.being_written += 1,
                // Its outcome is known, and it is counted there.
                State::Parked(Parked::Retry, _) => continue,
            }
            let age = known
                .since
                .map(|since| now.saturating_duration_since(since));
            waiting.oldest = waiting.oldest.max(age);
        }
        waiting
    }

    /// How many arrivals wait for a worker.
    pub fn len(&self) -> usize {
        self.lock().queued
    }

    /// Whether no arrival waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether [`Queue::close`] has been called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives no more work out; workers end, and what waited is found again by the next start.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(waiters: &[Weak<dyn Waiter>], arrival: &Arrival, record: Option<&Record>) {
    for waiter in waiters.iter().filter_map(Weak::upgrade) {
        waiter.settled(arrival, record);
    }
}

impl Inner {
    fn add(&mut self, arrival: Arrival, depth: usize, why: Why, waiter: Option<Weak<dyn Waiter>>) {
        let new = !self.known.contains_key(&arrival);
        let known = self.known.entry(arrival.clone()).or_default();
        known.depth = depth;
        known.since.get_or_insert_with(Instant::now);
        // Those who gave up waiting leave nothing behind.
        known.waiters.retain(|waiter| waiter.strong_count() > 0);
        known.waiters.extend(waiter);
        match known.state {
            State::Queued if !new => {
                if why == Why::Due {
                    known.why = why;
                }
            }
            State::Working => {
                if known.again != Again::Yes(Why::Due) {
                    known.again = Again::Yes(why);
                }
            }
            State::Queued | State::Parked(..) => {
                known.why = why;
                self.queue(arrival);
            }
        }
    }

    fn queue(&mut self, arrival: Arrival) {
        let Some(known) = self.known.get_mut(&arrival) else {
            return;
        };
        if let State::Parked(_, number) = known.state {
            self.parked.remove(&number);
        }
        known.state = State::Queued;
        let lane = lane(&arrival, known.depth);
        let waiting = self.lanes.entry(lane.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(lane);
        }
        waiting.push_back(arrival);
        self.queued += 1;
    }

    /// Takes the first arrival of the lane whose turn it is; the lane's next turn comes after all others'.
    fn take(&mut self, now: Instant) -> Option<Job> {
        let lane = self.turns.pop_front()?;
        let waiting = self.lanes.get_mut(&lane)?;
        let arrival = waiting.pop_front()?;
        if waiting.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        self.queued -= 1;
        let known = self.known.get_mut(&arrival)?;
        known.state = State::Working;
        let (why, since) = (known.why, known.since.unwrap_or(now));
        Some(Job {
            arrival,
            why,
            since,
        })
    }

    fn park(&mut self, arrival: Arrival, what: Parked, due: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(known) = self.known.get_mut(&arrival) {
            known.state = State::Parked(what, number);
            self.tokens.push(Reverse((due, number)));
            self.parked.insert(number, arrival);
        }
    }

    /// Queues those whose time has come, and answers how many they were. A token whose arrival was queued before is void.
    fn unpark(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some(Reverse((due, number))) = self.tokens.peek().copied()
            && due <= now
        {
            self.tokens.pop();
            let Some(arrival) = self.parked.remove(&number) else {
                continue;
            };
            if let Some(known) = self.known.get_mut(&arrival) {
                known.why = Why::Due;
                self.queue(arrival);
                count += 1;
            }
        }
        count
    }
}

/// The directories below the root that name a project.
fn lane(arrival: &Arrival, depth: usize) -> Lane {
    let directories = arrival.relative.parent().unwrap_or(Path::new(""));
    (
        arrival.root.clone(),
        directories.components().take(depth).collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn arrival(path: &str) -> Arrival {
        Arrival {
            root: PathBuf::from("/drop"),
            relative: PathBuf::from(path),
        }
    }

    #[test]
    fn a_project_that_drops_one_file_comes_second_at_the_latest() {
        let queue = Queue::default();
        for number in 0..10_000 {
            queue
                .push(arrival(&format!("big/one/{number}.rpm")), 2)
                .unwrap();
        }
        queue.push(arrival("small/one/a.rpm"), 2).unwrap();
        let first_two = [queue.next().unwrap(), queue.next().unwrap()];
        assert!(
            first_two
                .iter()
                .any(|job| job.arrival == arrival("small/one/a.rpm"))
        );
    }

    #[test]
    fn an_arrival_that_waits_is_not_added_twice_and_one_in_work_is_worked_on_again() {
        let queue = Queue::default();
        queue.push(arrival("a/b/c.rpm"), 2).unwrap();
        queue.push(arrival("a/b/c.rpm"), 2).unwrap();
        assert_eq!(queue.len(), 1);
        let job = queue.next().unwrap();
        assert_eq!(queue.len(), 0);
        queue.push(arrival("a/b/c.rpm"), 2).unwrap();
        assert_eq!(queue.len(), 0);
        queue.done(&job.arrival, Next::Done(None));
        assert_eq!(queue.len(), 1);
        let job = queue.next().unwrap();
        queue.done(&job.arrival, Next::Done(None));
        assert_eq!(queue.waiting_below(Path::new("/")).queued, 0);
    }

    #[test]
    fn a_file_that_is_being_written_is_looked_at_again_without_an_event() {
        let queue = Queue::default();
        queue.push(arrival("a/b/c.rpm"), 2).unwrap();
        let job = queue.next().unwrap();
        queue.done(&job.arrival, Next::BeingWritten);
        assert_eq!(queue.waiting_below(Path::new("/drop/a")).being_written, 1);
        assert_eq!(queue.next().unwrap().arrival, job.arrival);
    }

    #[test]
    fn an_event_neither_hastens_nor_delays_the_next_try_of_a_failure() {
        let file = tempfile::tempfile().unwrap();
        let stamp = crate::place::Stamp::of(&rustix::fs::fstat(&file).unwrap());
        let policy = crate::record::Policy::of("");
        let outcome = crate::record::Outcome::Failed;
        let record = Record::new(stamp, policy, outcome, "why".into());
        let queue = Queue::default();
        queue.push(arrival("a/b/c.rpm"), 2).unwrap();
        let begin = Instant::now();
        let job = queue.next().unwrap();
        queue.done(&job.arrival, Next::Retry(record.clone()));
        for _ in 0..100 {
            queue.push(arrival("a/b/c.rpm"), 2).unwrap();
            let job = queue.next().unwrap();
            assert_eq!(job.why, Why::Told);
            queue.done(&job.arrival, Next::Retry(record.clone()));
        }
        assert_eq!(queue.lock().parked.len(), 1);
        let job = queue.next().unwrap();
        assert_eq!(job.why, Why::Due);
        assert!(begin.elapsed() >= RETRY.0);
        queue.done(&job.arrival, Next::Done(None));
        assert!(queue.lock().known.is_empty());
    }

    #[test]
    fn who_gave_up_waiting_leaves_nothing_behind() {
        struct Nobody;
        impl Waiter for Nobody {
            fn settled(&self, _: &Arrival, _: Option<&Record>) {}
        }
        let queue = Queue::default();
        for _ in 0..100 {
            let waiter: Arc<dyn Waiter> = Arc::new(Nobody);
            queue.push_found(arrival("a/b/c.rpm"), 2, Some(Arc::downgrade(&waiter)));
        }
        assert!(queue.lock().known[&arrival("a/b/c.rpm")].waiters.len() <= 1);
    }

    #[test]
    fn a_closed_queue_lets_workers_and_lookers_go() {
        let queue = Arc::new(Queue::default());
        let worker = std::thread::spawn({
            let queue = queue.clone();
            move || queue.next().is_none()
        });
        queue.close();
        assert!(worker.join().unwrap());
        for number in 0..=ROOM_FOR_FOUND {
            queue.push_found(arrival(&format!("a/b/{number}.rpm")), 2, None);
        }
    }
}
