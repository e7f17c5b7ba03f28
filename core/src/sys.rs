//! System calls that rustix has no safe wrapper for: the only module with `unsafe` code.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Result;
use rustix::ioctl::{ioctl, Getter, Ioctl, IoctlOutput, Opcode};
use std::ffi::c_void;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// `BLKDISCARD`, `_IO(0x12, 119)` of linux/fs.h.
const BLKDISCARD: Opcode = 0x1277;
/// `BLKGETSIZE64`, `_IOR(0x12, 114, size_t)` of linux/fs.h.
const BLKGETSIZE64: Opcode = 0x8008_1272;
/// `BLKSSZGET`, `_IO(0x12, 104)`: writes an `int`.
const BLKSSZGET: Opcode = 0x1268;

struct Discard([u64; 2]);

// SAFETY: BLKDISCARD reads two u64 (offset, length) from the pointer and writes nothing; `self.0` is
// exactly that and lives for the call.
unsafe impl Ioctl for Discard {
    type Output = ();
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        BLKDISCARD
    }
    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// Discards `len` bytes at `offset` of a block device. What reads return afterwards is up to the
/// device: never rely on it being zero.
pub fn discard(device: impl AsFd, offset: u64, len: u64) -> Result<()> {
    // SAFETY: `Discard` describes BLKDISCARD as linux/fs.h does.
    unsafe { ioctl(device, Discard([offset, len])) }
}

/// Starts writing dirty pages of `len` bytes at `offset` of a file to the medium, and does not wait for it:
/// sync_file_range(2). Nothing is durable by it.
pub fn start_writeback(file: impl AsFd, offset: u64, len: u64) -> std::io::Result<()> {
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: takes numbers only, and the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Size of a block device in bytes.
pub fn device_size(device: impl AsFd) -> Result<u64> {
    // SAFETY: BLKGETSIZE64 writes one u64.
    unsafe { ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }
}

/// Logical block size of a block device in bytes.
pub fn logical_block_size(device: impl AsFd) -> Result<u32> {
    // SAFETY: BLKSSZGET writes one int.
    unsafe { ioctl(device, Getter::<BLKSSZGET, u32>::new()) }
}

/// Starts a program that gets SIGTERM when the calling *thread* ends, and so also when this process is killed:
/// prctl(2), PR_SET_PDEATHSIG. The thread must therefore live as long as the program is to.
pub fn spawn_tied(command: &mut Command) -> std::io::Result<Child> {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: both take numbers only, and are allowed between fork and exec.
        let (tied, now) = unsafe {
            let signal = libc::SIGTERM as libc::c_ulong;
            (libc::prctl(libc::PR_SET_PDEATHSIG, signal), libc::getppid())
        };
        match tied {
            0 if now.cast_unsigned() == parent => Ok(()),
            // We died before the tie was made.
            0 => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: `tie` makes two system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(tie) }.spawn()
}

/// Has a program run in a process group of its own from its first instant, so that what is sent to ours (Ctrl-C in a
/// terminal) reaches us alone, and we end what we have begun in order.
///
/// With the group alone the standard library would take posix_spawn(3). There a signal that is sent to our group before the child
/// has left it stays pending, and ends it as soon as our handlers are reset. After a fork our handlers catch it in the child.
pub fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0);
    // SAFETY: it does nothing; that it is there makes the library fork.
    unsafe { command.pre_exec(|| Ok(())) }
}
