//! The kernel's requests, each handed to the tree; nothing is decided here.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, SendError},
    },
    thread,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use crate::{
    attributes::Changes,
    files::{Close, changes},
    names::{Caller, NewMode, Told},
    open::Way,
    settling::Settles,
    tree::{DISTRUST, TRUST, Tree, attributes, kind},
};

/// The longest read and write. Source: Linux fs/fuse/fuse_i.h, `FUSE_MAX_MAX_PAGES` of 4 KiB.
const LONGEST: u32 = 1 << 20;

/// Answers the kernel out of a tree.
pub(crate) struct Requests(pub(crate) Arc<Tree>);

impl Requests {
    /// Answers a request: at once, or, if it may have to wait for the hook, on a thread of its own, so that nobody else waits.
    ///
    /// Where no thread is to be had, others wait, too.
    fn answer<A: FnOnce(&Arc<Tree>) + Send + 'static>(&self, waits: bool, answer: A) {
        if !waits {
            return answer(&self.0);
        }
        let tree = self.0.clone();
        let (give, given) = mpsc::channel::<A>();
        let waiter = thread::Builder::new().name("waiter".into());
        let _ = waiter.spawn(move || {
            if let Ok(answer) = given.recv() {
                answer(&tree);
            }
        });
        // Where there is no thread, nobody takes it.
        if let Err(SendError(answer)) = give.send(answer) {
            answer(&self.0);
        }
    }

    /// The same, when these files are settled.
    fn answer_after<A: FnOnce(&Arc<Tree>) + Send + 'static>(
        &self,
        settling: Vec<Arc<Settles>>,
        waits: bool,
        answer: A,
    ) {
        self.answer(waits || !settling.is_empty(), move |tree| {
            for file in settling {
                file.wait();
            }
            answer(tree);
        });
    }

    /// The same for what changes an inode's attributes: where another one has taken its place meanwhile, the kernel looks the name up
    /// once more.
    fn answer_change<A: FnOnce(&Arc<Tree>, Result<(), Errno>) + Send + 'static>(
        &self,
        number: INodeNo,
        waits: bool,
        change: A,
    ) {
        let settling = self.0.settling.of(number.0);
        let was_settling = !settling.is_empty();
        self.answer_after(settling, waits, move |tree| {
            let is_replaced =
                was_settling && tree.node(number.0).is_ok_and(|node| node.is_replaced());
            let is_current = match is_replaced {
                true => Err(Errno::STALE),
                false => Ok(()),
            };
            change(tree, is_current);
        });
    }
}

fn refusal(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        thread: request.pid(),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(refusal(errno)),
    }
}

fn entry(reply: ReplyEntry, result: Result<Told, Errno>) {
    match result {
        Ok(told) => {
            // The name of what is held back may mean something else to the next who asks.
            let trust = trust(&told);
            let generation = Generation(told.node.generation);
            reply.entry_with_ttls(&TRUST, &trust, &attributes(&told.stat), generation);
        }
        Err(errno) => reply.error(refusal(errno)),
    }
}

/// How long the kernel may believe that a name leads to a file.
fn trust(told: &Told) -> Duration {
    let has_other_names = told.node.kind == FileType::RegularFile && told.stat.st_nlink > 1;
    // What is written to it is judged by the name that it was looked up by last.
    match has_other_names || told.is_contested || told.node.content().is_held() {
        true => DISTRUST,
        false => TRUST,
    }
}

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

impl Filesystem for Requests {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            // What an old kernel does not know, it does without.
            let _ = config.add_capabilities(wanted);
        }
        let passes = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        self.0.set_passes(passes);
        let _ = config.set_max_write(LONGEST);
        let _ = config.set_max_readahead(LONGEST);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let caller = caller(request);
        let waits = self.0.redirects.is_led(caller.thread) && self.0.waits_for_name(parent.0, name);
        let settling = self.0.settling.named(parent.0, name);
        let name = name.to_owned();
        self.answer_after(settling, waits, move |tree| {
            entry(reply, tree.look(parent.0, &name, caller));
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.0.nodes.forget(number.0, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _open: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.0.stat(number.0) {
            Ok(stat) => reply.attr(&TRUST, &attributes(&stat)),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        open: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            len: size,
            accessed: atime,
            modified: mtime,
            open: open.map(|open| open.0),
        };
        let caller = caller(request);
        let waits = size.is_some()
            && match open {
                Some(open) => self.0.waits_for_open(open.0),
                None => self.0.waits_for_file(number.0),
            };
        self.answer_change(number, waits, move |tree, is_current| {
            // What changes nothing is asked for a descriptor, which may write on.
            let may_change = if changes.is_nothing() {
                Ok(())
            } else {
                is_current
            };
            match may_change.and_then(|()| tree.change_attributes(number.0, changes, caller)) {
                Ok(stat) => reply.attr(&TRUST, &attributes(&stat)),
                Err(errno) => reply.error(refusal(errno)),
            }
        });
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.0.read_link(number.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let mode = NewMode { mode, umask };
        entry(
            reply,
            self.0
                .make_node(parent.0, name, caller(request), mode, rdev),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = NewMode { mode, umask };
        entry(
            reply,
            self.0.make_directory(parent.0, name, caller(request), mode),
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let waits = self.0.waits_for_name(parent.0, name);
        let settling = self.0.settling.named(parent.0, name);
        let name = name.to_owned();
        self.answer_after(settling, waits, move |tree| {
            empty(reply, tree.unlink(parent.0, &name));
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.remove_directory(parent.0, name));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        entry(
            reply,
            self.0.make_symlink(parent.0, name, caller(request), target),
        );
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let waits = self.0.waits_for_name(parent.0, name) || self.0.waits_for_name(to.0, to_name);
        let (from, to) = ((parent.0, name.to_owned()), (to.0, to_name.to_owned()));
        let mut settling = self.0.settling_with([(from.0, &from.1), (to.0, &to.1)]);
        for (parent, name) in [&from, &to] {
            settling.extend(self.0.settling.named(*parent, name));
        }
        self.answer_after(settling, waits, move |tree| {
            let node = match tree.rename((from.0, &from.1), (to.0, &to.1), flags) {
                Ok(Some(node)) => node,
                renamed => {
                    empty(reply, renamed.map(|_| ()));
                    // The kernel may have found an old version before the new one was waited for.
                    if waits {
                        tree.tell_renamed_later([from, to]);
                    }
                    return;
                }
            };
            let finisher = tree.clone();
            tree.renamers.hand_over(move || {
                empty(reply, finisher.finish_renamed(&node, from.clone()));
                // By its old name it may be another file, where the hook has refused it.
                finisher.tell_renamed_later([from, to]);
            });
        });
    }

    fn link(
        &self,
        _request: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        let (settling, waits) = (
            self.0.settling.of(number.0),
            self.0.waits_for_file(number.0),
        );
        self.answer_after(settling, waits, move |tree| {
            let linked = tree.link(number.0, parent.0, &name);
            entry(reply, linked);
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (flags, caller) = (open_flags(flags.0), caller(request));
        let waits = changes(flags) && self.0.waits_for_file(number.0);
        self.answer_after(self.0.settling.of(number.0), waits, move |tree| {
            let opened = {
                let register = |file: &std::fs::File| reply.open_backing(file);
                tree.open_file(number.0, flags, caller, &register)
            };
            match opened {
                Ok(opened) => match &opened.backing {
                    Some(backing) => {
                        reply.opened_passthrough(FileHandle(opened.number), opened.flags, backing)
                    }
                    None => reply.opened(FileHandle(opened.number), opened.flags),
                },
                Err(errno) => reply.error(refusal(errno)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = {
            let register = |file: &std::fs::File| reply.open_backing(file);
            let mode = NewMode { mode, umask };
            self.0.create(
                parent.0,
                name,
                caller(request),
                mode,
                open_flags(flags),
                &register,
            )
        };
        match created {
            Ok((told, opened)) => {
                let (attributes, generation) =
                    (attributes(&told.stat), Generation(told.node.generation));
                let number = FileHandle(opened.number);
                match &opened.backing {
                    Some(backing) => reply.created_passthrough(
                        &trust(&told),
                        &attributes,
                        generation,
                        number,
                        opened.flags,
                        backing,
                    ),
                    // It may be held back any moment.
                    None => reply.created(&DISTRUST, &attributes, generation, number, opened.flags),
                }
            }
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let settling = self.0.settling_for_reader(open.0);
        self.answer(settling.is_some(), move |tree| {
            if let Some((node, settling)) = settling {
                Tree::wait_to_read(&node, &settling);
            }
            // Source: Linux fs/fuse/file.c, `fuse_send_read`: reads past the cache are somebody's.
            match tree.read(open.0, (offset, size), owner.is_none()) {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(refusal(errno)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        offset: u64,
        data: &[u8],
        kind: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = move |tree: &Tree, data: &[u8]| {
            let drops_set_id = kind.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            match tree.write(open.0, offset, data, open_flags(flags.0), drops_set_id) {
                Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
                Err(errno) => reply.error(refusal(errno)),
            }
        };
        if self.0.waits_for_open(open.0) {
            let data = data.to_vec();
            self.answer(true, move |tree| write(tree, &data));
        } else {
            write(&self.0, data);
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        match self.0.flush(open.0) {
            // Who only waits takes no thread from those who finish.
            Ok(Some(Close { node, awaits: true })) => {
                self.answer(true, move |tree| {
                    tree.finish_closed(&node, |result| empty(reply, result));
                });
            }
            Ok(Some(Close { node, .. })) => {
                let requests = Self(self.0.clone());
                self.0.closers.hand_over(move || {
                    let waits = node.is_finishing();
                    requests.answer(waits, move |tree| {
                        tree.finish_closed(&node, |result| empty(reply, result));
                    });
                });
            }
            Ok(None) => reply.ok(),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.go_on(self.0.release(open.0));
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        number: INodeNo,
        open: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        // The hook may have put another file in its place, which is not on the disk before. Who writes unseen would wait for himself.
        let settling = match self.0.opens.file(open.0).map(|open| open.way) {
            Ok(Way::Unseen) => Vec::new(),
            _ => self.0.settling.of(number.0),
        };
        self.answer_after(settling, false, move |tree| {
            empty(reply, tree.sync(open.0, datasync));
        });
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open_directory(number.0) {
            Ok(open) => reply.opened(FileHandle(open), FopenFlags::empty()),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        open: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        // Who goes on to read has begun before.
        let settling = match offset {
            0 => self.0.settling.within(number.0),
            _ => Vec::new(),
        };
        self.answer_after(settling, false, move |tree| {
            tree.judge_within(number.0);
            let read = tree.opens.directory(open.0).and_then(|directory| {
                directory.read(offset, &mut |found| {
                    tree.is_reserved(&found.name)
                        || !reply.add(
                            INodeNo(found.number),
                            found.next,
                            kind(found.kind),
                            &found.name,
                        )
                })
            });
            match read {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(refusal(errno)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        open: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let caller = caller(request);
        // The kernel is going to believe what names lead to, so that none may come to lead elsewhere unknown to it: it has the directory
        // locked until it is answered, and hears of what settles later after that.
        self.answer_after(self.0.settling.within(number.0), false, move |tree| {
            tree.judge_within(number.0);
            read_with_attributes(tree, open, offset, caller, reply);
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.opens.remove_directory(open.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        number: INodeNo,
        open: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer_after(self.0.settling.within(number.0), false, move |tree| {
            // What is on the disk is to have its name there.
            tree.judge_within(number.0);
            let synced = tree.opens.directory(open.0);
            empty(
                reply,
                synced.and_then(|directory| rustix::fs::fsync(&directory.file)),
            );
        });
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        match self.0.space() {
            Ok(space) => reply.statfs(
                space.f_blocks,
                space.f_bfree,
                space.f_bavail,
                space.f_files,
                space.f_ffree,
                space.f_bsize as u32,
                space.f_namemax as u32,
                space.f_frsize as u32,
            ),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.answer_change(number, false, move |tree, is_current| {
            let set = || tree.set_attribute(number.0, &name, &value, flags);
            empty(reply, is_current.and_then(|()| set()));
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        sized(reply, size, self.0.attribute(number.0, name));
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        sized(
            reply,
            size,
            self.0.attribute_names(number.0, caller(request)),
        );
    }

    fn removexattr(&self, _request: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.answer_change(number, false, move |tree, is_current| {
            let remove = || tree.remove_attribute(number.0, &name);
            empty(reply, is_current.and_then(|()| remove()));
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _number: INodeNo,
        open: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let drops_set_id = caller(request).drops_set_id();
        self.answer(self.0.waits_for_open(open.0), move |tree| {
            empty(
                reply,
                tree.allocate(open.0, (offset, length), mode, drops_set_id),
            );
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        open: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.0.seek(open.0, offset, whence) {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _from: INodeNo,
        open_from: FileHandle,
        offset_from: u64,
        _to: INodeNo,
        open_to: FileHandle,
        offset_to: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let drops_set_id = caller(request).drops_set_id();
        let (from, to) = ((open_from.0, offset_from), (open_to.0, offset_to));
        self.answer(self.0.waits_for_open(open_to.0), move |tree| {
            match tree.copy(from, to, len, drops_set_id) {
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(errno) => reply.error(refusal(errno)),
            }
        });
    }
}

/// Tells the names in a directory, and what they mean.
fn read_with_attributes(
    tree: &Tree,
    open: FileHandle,
    offset: u64,
    caller: Caller,
    mut reply: ReplyDirectoryPlus,
) {
    let (mut failed, mut is_empty) = (None, true);
    let read = tree.opens.directory(open.0).and_then(|directory| {
        directory.read(offset, &mut |found| {
            if tree.is_reserved(&found.name) {
                return true;
            }
            let is_dot = found.name == "." || found.name == "..";
            let told = match is_dot {
                true => None,
                // One that is gone since is left out.
                false => match tree.look(directory.number, &found.name, caller) {
                    Ok(told) => Some(told),
                    Err(Errno::NOENT | Errno::STALE | Errno::XDEV) => return true,
                    Err(errno) => {
                        failed = Some(errno);
                        return false;
                    }
                },
            };
            let (generation, attributes, trust) = match &told {
                Some(told) => (
                    Generation(told.node.generation),
                    attributes(&told.stat),
                    trust(told),
                ),
                None => (
                    Generation(0),
                    crate::tree::bare(found.number, found.kind),
                    DISTRUST,
                ),
            };
            let full = reply.add(
                attributes.ino,
                found.next,
                &found.name,
                &trust,
                &attributes,
                generation,
            );
            if full && let Some(told) = &told {
                tree.nodes.forget(told.node.number, 1);
            }
            is_empty &= full;
            !full
        })
    });
    match (read, failed.filter(|_| is_empty)) {
        (Ok(()), Some(errno)) => reply.error(refusal(errno)),
        // What has failed is met again by the next request.
        (Ok(()), None) => reply.ok(),
        (Err(errno), _) => reply.error(refusal(errno)),
    }
}

fn sized(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(refusal(Errno::RANGE)),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(refusal(errno)),
    }
}
