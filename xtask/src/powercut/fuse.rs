//! The volatile disk as the one file of a FUSE file system: what a loop device stands on.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::volatile::{Cut, VolatileDisk};
use crate::crash::clock;
use crate::crash::random::Random;

/// Name of the file.
pub(crate) const FILE: &str = "disk";
const FILE_INODE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_hours(1);
/// As long as a flush of a real disk takes: so much time has an acknowledgement that does not wait for it.
const FLUSH_TIME: Duration = Duration::from_millis(3);

/// The disk, which the kernel's requests and the power cut share.
#[derive(Clone)]
pub(crate) struct SharedDisk(
    #[expect(clippy::disallowed_types, reason = "no shard: a thread of FUSE and the driver")]
    Arc<std::sync::Mutex<VolatileDisk>>,
);

impl SharedDisk {
    #[expect(clippy::disallowed_types, reason = "no shard: a thread of FUSE and the driver")]
    pub(crate) fn new(disk: VolatileDisk) -> Self {
        Self(Arc::new(std::sync::Mutex::new(disk)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut VolatileDisk) -> T) -> T {
        act(&mut self.0.lock().expect("no holder panics"))
    }

    /// Cuts the power.
    ///
    /// # Errors
    /// When the stable file cannot be written.
    pub(crate) fn cut(&self, random: &mut Random) -> std::io::Result<Cut> {
        self.with(|disk| disk.cut(random))
    }

    /// Gives power again.
    pub(crate) fn power_on(&self) {
        self.with(VolatileDisk::power_on);
    }

    /// Serves the disk as `<directory>/disk` until the session is ended.
    ///
    /// # Errors
    /// When the kernel does not mount.
    pub(crate) fn serve(&self, directory: &Path) -> std::io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("levada-powercut".to_owned())];
        fuser::spawn_mount(self.clone(), directory, &config)
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE_INODE;
        let size = if is_file { self.with(|disk| disk.bytes()) } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for SharedDisk {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&TTL, &self.attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.with(|disk| disk.read(offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(|disk| disk.write(offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel's limit")),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        clock::wait(FLUSH_TIME);
        match self.with(VolatileDisk::flush) {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    /// A close promises nothing about stable storage.
    fn flush(&self, _: &Request, _inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
