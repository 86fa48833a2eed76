//! Files that the hook finishes, until they are seen.

use std::{
    ffi::OsStr,
    os::fd::{AsFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use fuser::INodeNo;
use rustix::{fs::OFlags, io::Errno};

use crate::{
    Held, MakeLast,
    file_id::FileId,
    files::Released,
    held::{has_begun, rename_over_nothing, unmark_half},
    node::{Content, Name, Node, Phase, Place, State},
    open::Way,
    settling::{CLOSING, Ending},
    tree::{Tree, head, held_name, is_same_inode},
    unseen::Stamp,
};

/// How many files may settle at once; the writers of more wait for the disk. Each holds some descriptors.
const MOST_SETTLING: usize = 64;

impl Tree {
    /// Has the hook finish a file, and shows it. Returns when it is seen, or why not.
    pub(crate) fn finish(&self, node: &Arc<Node>) -> Result<(), Errno> {
        if let Some((parent, name)) = self.finish_untold(node)? {
            self.tell_renamed(parent, &name);
        }
        Ok(())
    }

    /// The same for one of which a copy of a descriptor is closed: that is answered as soon as the hook has finished the file, which is
    /// seen when it lasts. Where another close had it finished meanwhile, this one waits for that, and is told what came of it.
    pub(crate) fn finish_closed(
        self: &Arc<Self>,
        node: &Arc<Node>,
        answer: impl FnOnce(Result<(), Errno>),
    ) {
        let content = node.content_at_rest();
        // One that writes unseen may have written since.
        let is_current = content.unseen == 0 || self.is_unchanged(node, &content);
        let refusal = self.refusal(node, &content).filter(|_| is_current);
        drop(content);
        if let Some(errno) = refusal {
            return answer(Err(errno));
        }
        let begun = match self.begin(node, Asks::Close) {
            Ok(Some(begun)) => begun,
            Ok(None) => return answer(Ok(())),
            Err(errno) => return answer(Err(errno)),
        };
        let Some(begun) = self.make_ready(node, begun) else {
            return answer(Ok(()));
        };
        let (parent, name) = begun.place.clone();
        let may_settle = matches!(&begun.finished, Ok(finished) if finished.make_last.is_some())
            && self.settling.len() < MOST_SETTLING;
        if !may_settle {
            let result = self.end(node, begun);
            if result.is_ok() {
                self.tell_renamed(parent, &name);
            }
            return answer(result);
        }
        let is_known = self.has_older(node) || begun.is_replaced();
        let ending = self.settling.begin(node);
        self.tell_attributes(node.number);
        let (tree, settling) = (self.clone(), node.clone());
        self.flushers.hand_over_or_do(move || {
            // The hook has told of what fails now.
            let _ = tree.end(&settling, begun);
            drop(ending);
        });
        // The kernel may believe that the name leads to an old version. What it has locked for somebody who waits for this file, it
        // has until that is settled.
        if is_known {
            self.tell_renamed(parent, &name);
        }
        answer(Ok(()));
    }

    /// Keeps what the hook has finished until no descriptor is open any more that writes unseen. Answers it where none is.
    fn make_ready(&self, node: &Arc<Node>, begun: Begun) -> Option<Begun> {
        let is_seen =
            matches!(&begun.finished, Ok(finished) if finished.shown.state == State::Seen);
        if !is_seen || node.content().unseen == 0 {
            return Some(begun);
        }
        self.settling.wait_for_room(MOST_SETTLING);
        let ending = self.settling.begin_closing(node);
        let mut content = node.content();
        // Others are released meanwhile.
        if content.unseen == 0 {
            return Some(begun);
        }
        content.since = begun.since;
        content.ready = Some(Box::new(Ready { begun, ending }));
        content.state = State::Held(Phase::Ready);
        drop(content);
        node.tell_finished();
        self.tell_attributes(node.number);
        None
    }

    /// Does what is to be done when a descriptor is not open any more, on another thread.
    pub(crate) fn go_on(self: &Arc<Self>, released: Released) {
        match released {
            Released::Left => {}
            Released::Shows(node, ready) => self.show_ready(node, ready),
            Released::Finishes(node) => {
                let tree = self.clone();
                self.closers.hand_over(move || {
                    // Nobody is there to be told; `status` shows it.
                    let _ = tree.finish(&node);
                });
            }
        }
    }

    /// Shows what the hook has finished, when it lasts.
    fn show_ready(self: &Arc<Self>, node: Arc<Node>, ready: Ready) {
        let Ready { begun, ending } = ready;
        ending.flushes();
        let tree = self.clone();
        self.flushers.hand_over_or_do(move || {
            // The hook has told of what fails now.
            let _ = tree.end(&node, begun);
            drop(ending);
        });
    }

    /// Why the hook has refused what was written last.
    pub(crate) fn refusal(&self, node: &Node, content: &Content) -> Option<Errno> {
        let is_refused = || match content.state {
            State::Held(Phase::Refused) => true,
            State::Replaced => self.left_of(node, content).is_some(),
            _ => false,
        };
        content.refused.filter(|_| !content.dirty && is_refused())
    }

    /// What the hook had put in a file's place before it failed, as long as that is held back there.
    pub(crate) fn left_of(&self, node: &Node, content: &Content) -> Option<Arc<Node>> {
        let (parent, name) = node.place();
        let held = self.index.find(parent, &name)?;
        (content.successor.as_ref() == Some(&held.id)).then_some(held)
    }

    /// The same for a file that is being renamed. Where the hook refuses it, it has its old name again.
    ///
    /// The kernel waits for an answer about the directories meanwhile, so it has to be told afterwards.
    pub(crate) fn finish_renamed(&self, node: &Arc<Node>, from: Place) -> Result<(), Errno> {
        // Somebody may still write to it: his close finishes it. Or the kernel has not told yet that it was the last.
        node.wait_for_release(CLOSING);
        if node.content().unseen > 0 {
            return Ok(());
        }
        let result = self.finish_untold(node);
        if result.is_err()
            && let Err(errno) = self.put_back(node, from)
        {
            // It is held back, as what a writer has closed is.
            return Err(errno);
        }
        result.map(|_| ())
    }

    fn put_back(&self, node: &Arc<Node>, from: Place) -> Result<(), Errno> {
        let (parent, name) = node.place();
        let left = self.left_of(node, &node.content_at_rest());
        if let Some(left) = left {
            self.put_back(&left, from.clone())?;
            node.set_place(from);
            return Ok(());
        }
        let mut content = node.content_at_rest();
        if content.state != State::Held(Phase::Refused) {
            return Ok(());
        }
        let (held, directory) = (held_name(&name), self.directory(parent)?);
        rename_over_nothing(&directory, &held, &self.directory(from.0)?, &from.1)?;
        content.state = State::Plain;
        content.epoch += 1;
        self.leave(node);
        node.set_place(from);
        drop(content);
        if let Some(path) = self.path_of(parent, &name) {
            self.hook.moved(&path, None);
        }
        Ok(())
    }

    /// Answers where the file is seen now, if that has changed. The kernel has to be told.
    fn finish_untold(&self, node: &Arc<Node>) -> Result<Option<Place>, Errno> {
        let Some(begun) = self.begin(node, Asks::Other)? else {
            return Ok(None);
        };
        let place = begun.place.clone();
        match self.make_ready(node, begun) {
            None => Ok(None),
            Some(begun) => self.end(node, begun).map(|()| Some(place)),
        }
    }

    /// Has the hook finish a file. Nothing where there is nothing to finish.
    fn begin(&self, node: &Arc<Node>, asks: Asks) -> Result<Option<Begun>, Errno> {
        let mut content = node.content_at_rest();
        match content.state {
            State::Held(Phase::Ready) if self.is_unchanged(node, &content) => return Ok(None),
            State::Held(Phase::Ready) => content.anew(),
            State::Held(_) => {}
            _ => return Ok(None),
        }
        // Somebody has opened it for writing since it was decided to finish it: his close finishes it.
        if !content.is_last(0) {
            return Ok(None);
        }
        let before = content.state;
        let unmark = || unmark_half(self.reach(node)?.as_fd());
        if let Err(errno) = content.failed.map_or_else(unmark, Err) {
            content.state = State::Held(Phase::Refused);
            return Err(errno);
        }
        content.state = State::Held(Phase::Finishing);
        content.dirty = false;
        content.epoch += 1;
        let writers: Vec<u64> = content.writers.keys().copied().collect();
        let stamp = self.stamp(node);
        let is_flushed = content.is_flushed || asks == Asks::Other;
        drop(content);
        for open in writers
            .into_iter()
            .filter_map(|open| self.opens.file(open).ok())
            .filter(|open| open.way != Way::Unseen)
        {
            open.target().file = None;
        }
        let place = node.place();
        let finished = self.finish_at(node, (place.0, &place.1), is_flushed);
        let modified = finished
            .as_ref()
            .ok()
            .and_then(|finished| finished.modified);
        // What was written while the hook refused it, or had another file in its place, is to be noticed as well.
        let since = match modified {
            Some(modified) => self.stamp(node).map(|stamp| stamp.modified(modified)),
            None => stamp,
        };
        Ok(Some(Begun {
            before,
            place,
            finished,
            since,
        }))
    }

    /// Shows what the hook has finished, when it lasts, or holds back what it has refused.
    fn end(&self, node: &Arc<Node>, begun: Begun) -> Result<(), Errno> {
        let Begun {
            before,
            place: (parent, name),
            finished,
            since,
        } = begun;
        let result = finished.and_then(|finished| self.show((parent, &name), finished));
        let left = match result {
            Err(errno) => self.left_by_hook(node, errno),
            Ok(_) => None,
        };
        let mut content = node.content();
        content.epoch += 1;
        content.telling += 1;
        content.refused = result.as_ref().err().copied();
        content.since = since;
        match &result {
            Ok(shown) => {
                content.state = shown.state;
                content.successor.clone_from(&shown.successor);
                self.leave(node);
            }
            Err(_) => match left {
                Some(left) => {
                    content.state = State::Replaced;
                    content.successor = Some(left.id.clone());
                    self.leave(node);
                    self.enter(&left);
                    self.nodes.forget(left.number, 1);
                }
                None => content.state = State::Held(Phase::Refused),
            },
        }
        drop(content);
        node.tell_finished();
        // While nobody reads it: what the kernel knows of its length and content is that of before. It waits for pages that it is
        // asking for just now, so that nobody who could answer that may be waiting for this.
        self.tell_content(node.number);
        node.content().telling -= 1;
        if let Ok(shown) = &result {
            match (shown.state, before, &shown.path) {
                (State::Seen | State::Replaced, _, Some(path)) => self.hook.seen(path),
                (_, State::Held(Phase::Refused), Some(path)) => self.hook.moved(path, None),
                _ => {}
            }
        }
        result.map(|_| ())
    }

    /// The file that the hook has put in another's place before it failed, which is held back from here on.
    fn left_by_hook(&self, node: &Node, refused: Errno) -> Option<Arc<Node>> {
        let place = node.place();
        let directory = self.directory(place.0).ok()?;
        let found = self.find(&directory, &held_name(&place.1)).ok()?;
        let left = self.look_up(&found, place).ok()?;
        if left.number == node.number {
            self.nodes.forget(left.number, 1);
            return None;
        }
        let mut content = left.content();
        content.state = State::Held(Phase::Refused);
        content.refused = Some(refused);
        drop(content);
        Some(left)
    }

    fn finish_at(
        &self,
        node: &Node,
        (parent, name): Name<'_>,
        is_flushed: bool,
    ) -> Result<Finished, Errno> {
        let directory = self.directory(parent)?;
        let path = self.path_of(parent, name);
        let held = held_name(name);
        let found = self.find(&directory, &held)?;
        let file = self.open_content(node, OFlags::RDONLY)?;
        if !is_same_inode(&found.stat, &rustix::fs::fstat(&file)?) {
            return Err(Errno::STALE);
        }
        let head = head(&file)?;
        let (mut successor, mut make_last, mut modified) = (None, None, None);
        // It may have been overwritten by something else meanwhile.
        let state = if self.concerns(path.as_deref(), &head) {
            let Some(path) = &path else {
                return Err(Errno::STALE);
            };
            let file = Held {
                path,
                directory: directory.as_fd(),
                name: &held,
                is_flushed,
                has_writers: node
                    .content()
                    .backing
                    .as_ref()
                    .is_some_and(|backing| backing.writes),
            };
            // A panic of the hook must end as any other failure does.
            let result = catch_unwind(AssertUnwindSafe(|| self.hook.finish(&file)));
            // The hook may have put another file in its place.
            let before = found.stat;
            self.keep(Some(found), (parent, &held));
            let done = result.unwrap_or(Err(Errno::IO))?;
            make_last = done.make_last;
            let found = self.find(&directory, &held)?;
            if is_same_inode(&found.stat, &before) {
                modified = Some(done.modified);
                State::Seen
            } else {
                successor = Some(FileId::of(&found.file)?);
                State::Replaced
            }
        } else {
            let has_old = self.find(&directory, name).is_ok();
            // Whoever was to write it has ended before its first bytes.
            if has_old && !has_begun(&head) {
                return Err(Errno::IO);
            }
            if has_old {
                // The old one must not be replaced by what is not on the disk.
                rustix::fs::fdatasync(&file)?;
            }
            State::Plain
        };
        Ok(Finished {
            directory,
            make_last,
            modified,
            shown: Shown {
                state,
                path,
                successor,
            },
        })
    }

    /// Shows a file that has been finished, when it lasts.
    fn show(&self, (parent, name): Name<'_>, finished: Finished) -> Result<Shown, Errno> {
        let Finished {
            directory,
            make_last,
            shown,
            ..
        } = finished;
        let mut is_shown = false;
        let mut show = || {
            let doomed = self.find(&directory, name).ok();
            rustix::fs::renameat(&directory, held_name(name), &directory, name)?;
            self.keep(doomed, (parent, name));
            is_shown = true;
            Ok(())
        };
        let result = match make_last {
            // A panic of the hook must end as any other failure does.
            Some(make_last) => {
                catch_unwind(AssertUnwindSafe(|| make_last(&mut show))).unwrap_or(Err(Errno::IO))
            }
            None => show(),
        };
        match is_shown {
            true => Ok(shown),
            false => Err(result.err().unwrap_or(Errno::IO)),
        }
    }

    /// Makes the kernel forget which inodes names lead to, when it has been answered.
    pub(crate) fn tell_renamed_later(self: &Arc<Self>, places: [Place; 2]) {
        let tree = self.clone();
        self.closers.hand_over(move || {
            for (parent, name) in places {
                tree.tell_renamed(parent, &name);
            }
        });
    }

    /// Makes the kernel forget which inode a name leads to. Not to be called with anything locked, nor while the kernel waits for an
    /// answer about the directory that this thread, or whoever waits for it, has to give.
    pub(crate) fn tell_renamed(&self, parent: u64, name: &OsStr) {
        if let Some(notifier) = self.notifier.get() {
            // The kernel has forgotten it by itself where this fails.
            let _ = notifier.inval_entry(INodeNo(parent), name);
        }
    }

    /// Makes the kernel forget an inode's attributes, for which it waits for nothing.
    fn tell_attributes(&self, number: u64) {
        if let Some(notifier) = self.notifier.get() {
            let _ = notifier.inval_inode(INodeNo(number), -1, 0);
        }
    }

    /// Makes the kernel forget what it knows of an inode alone, which it does whatever it has locked itself.
    fn tell_content(&self, number: u64) {
        if let Some(notifier) = self.notifier.get() {
            let _ = notifier.inval_inode(INodeNo(number), 0, 0);
        }
    }
}

/// Who has a file finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// A close, which need not wait for the disk where its writer has not asked for that.
    Close,
    /// Anybody else.
    Other,
}

/// A file that the hook has had.
pub(crate) struct Begun {
    /// What it was before.
    before: State,
    place: Place,
    finished: Result<Finished, Errno>,
    /// What the file was when the hook left it or, where that has not finished it, before.
    since: Option<Stamp>,
}

/// What the hook has finished, while somebody may still write to it.
pub(crate) struct Ready {
    begun: Begun,
    ending: Ending,
}

impl Ready {
    /// Another copy of a descriptor is being closed, which may be the last.
    pub(crate) fn closes(&self) {
        self.ending.closes();
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Begun {
    /// Whether the hook has put another file in its place.
    fn is_replaced(&self) -> bool {
        matches!(&self.finished, Ok(finished) if finished.shown.state == State::Replaced)
    }
}

/// What the hook has finished.
struct Finished {
    directory: OwnedFd,
    make_last: Option<MakeLast>,
    /// When the hook left it, where it is the same file.
    modified: Option<(i64, u32)>,
    shown: Shown,
}

/// What has come to be seen.
struct Shown {
    state: State,
    path: Option<PathBuf>,
    successor: Option<FileId>,
}
