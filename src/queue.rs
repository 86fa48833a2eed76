//! Arrivals that wait for a worker: none twice, each project in its turn.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::record::Record;

/// How many arrivals may wait before those that were found by looking have to wait for room; a look begins anew at any time.
const ROOM_FOR_FOUND: usize = 10_000;
/// How many arrivals may wait at all. Beyond, an arrival is refused, and its drop directory has to be looked at.
const ROOM: usize = 200_000;
/// How long until a file that somebody is writing is looked at again, should no event tell of its end.
const WRITTEN_AGAIN: Duration = Duration::from_millis(500);
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

/// An arrival that a worker works on.
#[derive(Debug)]
pub struct Job {
    /// The arrival.
    pub arrival: Arrival,
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
    since: Option<Instant>,
    /// It arrived again while it was worked on.
    again: Again,
    failures: u32,
    waiters: Vec<Arc<dyn Waiter>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Queued,
    Working,
    /// Waits for its writer, or for the time of its next try.
    Parked(Parked),
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
    Yes,
}

/// A project's place in the queue: the first directories of the path, whatever they mean.
type Lane = (PathBuf, PathBuf);

#[derive(Default)]
struct Inner {
    known: HashMap<Arrival, Known>,
    lanes: HashMap<Lane, VecDeque<Arrival>>,
    turns: VecDeque<Lane>,
    queued: usize,
    parked: BinaryHeap<Reverse<(Instant, u64)>>,
    parked_arrivals: HashMap<u64, Arrival>,
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
    pub fn push(&self, arrival: Arrival) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.queued >= ROOM && !inner.known.contains_key(&arrival) {
            return Err(Full);
        }
        inner.add(arrival, None);
        self.work.notify_one();
        Ok(())
    }

    /// Adds an arrival that was found by looking, once there is room. `waiter` learns its outcome.
    pub fn push_found(&self, arrival: Arrival, waiter: Option<Arc<dyn Waiter>>) {
        let mut inner = self.lock();
        while inner.queued >= ROOM_FOR_FOUND && !inner.closed {
            inner = self
                .room
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.add(arrival, waiter);
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
            inner.unpark(now);
            if let Some(job) = inner.take(now) {
                if inner.queued < ROOM_FOR_FOUND {
                    self.room.notify_all();
                }
                return Some(job);
            }
            inner = match inner.parked.peek() {
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
        let again = std::mem::take(&mut known.again);
        if again == Again::Yes {
            known.state = State::Queued;
            inner.queue(arrival.clone());
            self.work.notify_one();
            return;
        }
        match next {
            Next::Again => {
                known.state = State::Queued;
                inner.queue(arrival.clone());
                self.work.notify_one();
            }
            Next::BeingWritten => {
                known.state = State::Parked(Parked::BeingWritten);
                inner.park(arrival.clone(), WRITTEN_AGAIN);
                self.work.notify_one();
            }
            Next::Retry(record) => {
                let waiters = std::mem::take(&mut known.waiters);
                known.state = State::Parked(Parked::Retry);
                known.failures = known.failures.saturating_add(1);
                let (first, longest) = RETRY;
                let pause = first.saturating_mul(1 << known.failures.min(10).saturating_sub(1));
                inner.park(arrival.clone(), pause.min(longest));
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
                State::Parked(Parked::BeingWritten) => waiting.being_written += 1,
                // Its outcome is known, and it is counted there.
                State::Parked(Parked::Retry) => continue,
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

    /// Whether every arrival has its outcome, none of which is to be tried again.
    pub fn is_idle(&self) -> bool {
        self.lock().known.is_empty()
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

fn tell(waiters: &[Arc<dyn Waiter>], arrival: &Arrival, record: Option<&Record>) {
    for waiter in waiters {
        waiter.settled(arrival, record);
    }
}

impl Inner {
    fn add(&mut self, arrival: Arrival, waiter: Option<Arc<dyn Waiter>>) {
        let new = !self.known.contains_key(&arrival);
        let known = self.known.entry(arrival.clone()).or_default();
        known.since.get_or_insert_with(Instant::now);
        let is_waited_for = waiter.is_some();
        known.waiters.extend(waiter);
        match known.state {
            State::Queued if !new => {}
            State::Working => known.again = Again::Yes,
            // The event may be of our own failed write, which must not have it tried again without a pause.
            State::Parked(Parked::Retry) if !is_waited_for => self.park(arrival, RETRY.0),
            State::Queued | State::Parked(_) => {
                known.state = State::Queued;
                self.queue(arrival);
            }
        }
    }

    fn queue(&mut self, arrival: Arrival) {
        let lane = lane(&arrival);
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
        let since = known.since.unwrap_or(now);
        Some(Job { arrival, since })
    }

    fn park(&mut self, arrival: Arrival, pause: Duration) {
        let number = self.next_number;
        self.next_number += 1;
        self.parked.push(Reverse((Instant::now() + pause, number)));
        self.parked_arrivals.insert(number, arrival);
    }

    fn unpark(&mut self, now: Instant) {
        while let Some(Reverse((due, number))) = self.parked.peek().copied()
            && due <= now
        {
            self.parked.pop();
            let Some(arrival) = self.parked_arrivals.remove(&number) else {
                continue;
            };
            // It may have arrived again, and even been parked again, before its time.
            if let Some(known) = self.known.get_mut(&arrival)
                && let State::Parked(_) = known.state
            {
                known.state = State::Queued;
                self.queue(arrival);
            }
        }
    }
}

/// The first two directories below the root, which is where projects differ in every layout that is in use.
fn lane(arrival: &Arrival) -> Lane {
    let directories = arrival.relative.parent().unwrap_or(Path::new(""));
    (
        arrival.root.clone(),
        directories.components().take(2).collect(),
    )
}

#[cfg(test)]
mod tests {
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
                .push(arrival(&format!("big/one/{number}.rpm")))
                .unwrap();
        }
        queue.push(arrival("small/one/a.rpm")).unwrap();
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
        queue.push(arrival("a/b/c.rpm")).unwrap();
        queue.push(arrival("a/b/c.rpm")).unwrap();
        assert_eq!(queue.len(), 1);
        let job = queue.next().unwrap();
        assert_eq!(queue.len(), 0);
        queue.push(arrival("a/b/c.rpm")).unwrap();
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
        queue.push(arrival("a/b/c.rpm")).unwrap();
        let job = queue.next().unwrap();
        queue.done(&job.arrival, Next::BeingWritten);
        assert_eq!(queue.waiting_below(Path::new("/drop/a")).being_written, 1);
        assert_eq!(queue.next().unwrap().arrival, job.arrival);
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
            queue.push_found(arrival(&format!("a/b/{number}.rpm")), None);
        }
    }
}
