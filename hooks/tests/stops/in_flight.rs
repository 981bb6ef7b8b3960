//! Writes that go on under a pause: they are drained, or the pause is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stillpoint_hooks::{guard::Stop, mounts, strangers};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::{
    common::{Desk, wait_for},
    deaths::Group,
    pause::{Member, pause},
};

/// A process that asks for an AIO context, as a database may.
const AIO: &str = r#"exec python3 -c '
import ctypes, time
context = ctypes.c_ulong(0)
assert ctypes.CDLL(None).syscall(206, 128, ctypes.byref(context)) == 0
time.sleep(600)' "$1""#;

/// A process that asks for an io_uring.
const URING: &str = r#"exec python3 -c '
import ctypes, time
assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) > 0
time.sleep(600)' "$1""#;

async fn is_paused_only_with_a_drain(script: &str, name: &str) {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = Group::v2("in-flight") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let _member = Member::start(&group, script, &mount.path());
    wait_for(name, || !strangers::with_io_in_flight(std::slice::from_ref(&group.0)).is_empty());
    let error = desk.refused(&pause(&group)).await;
    assert!(error.contains(&format!("uses {name}, which goes on under a pause: drain its filesystem")), "{error}");
    let stop = Stop { drain: vec![mount.path()], ..pause(&group) };
    assert!(desk.stop(&stop).await.release().await.whole);
}

#[tokio::test]
async fn who_has_an_aio_context_is_paused_only_with_a_drain() {
    is_paused_only_with_a_drain(AIO, "AIO").await;
}

#[tokio::test]
async fn who_has_an_io_uring_is_paused_only_with_a_drain() {
    is_paused_only_with_a_drain(URING, "io_uring").await;
}

const BLOCKS: usize = 64;
const BLOCK: usize = 256 << 10;

/// Submits one O_DIRECT write of each block of a file and waits; says that they are submitted by a file beside it.
const SUBMITS: &str = r#"exec python3 -c '
import ctypes, mmap, os, struct, sys, time
blocks, size, path = 64, 256 << 10, sys.argv[1]
libc = ctypes.CDLL(None)
context = ctypes.c_ulong(0)
assert libc.syscall(206, blocks, ctypes.byref(context)) == 0
data = mmap.mmap(-1, size)
data.write(b"x" * size)
address = ctypes.addressof(ctypes.c_char.from_buffer(data))
file = os.open(path, os.O_WRONLY | os.O_DIRECT)
requests = [
    ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", 0, 0, 0, 1, 0, file, address, size, block * size, 0, 0, 0))
    for block in range(blocks)
]
pointers = (ctypes.c_void_p * blocks)(*(ctypes.addressof(request) for request in requests))
submitted = libc.syscall(209, context, blocks, pointers)
open(path + ".submitted", "w").write(str(submitted))
time.sleep(600)' "$1""#;

/// How many blocks of a file have landed.
fn landed(file: &Path) -> usize {
    let content = fs::read(file).unwrap();
    content.chunks(BLOCK).filter(|block| block.iter().all(|byte| *byte == b'x')).count()
}

/// The limit of bytes a second that a cgroup may write to a device, lifted when dropped.
struct Throttle {
    group: Group,
    device: String,
}

impl Throttle {
    fn new(freezer: &Path, mount: &LoopMount, bytes: u64) -> Self {
        let group = Group::below(&freezer.with_file_name("blkio"), "throttle");
        let device = mounts::of(&mount.path()).unwrap().device.to_string();
        fs::write(group.0.join("blkio.throttle.write_bps_device"), format!("{device} {bytes}")).unwrap();
        Self { group, device }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let _ = fs::write(self.group.0.join("blkio.throttle.write_bps_device"), format!("{} 0", self.device));
    }
}

#[tokio::test]
async fn direct_writes_in_flight_have_landed_when_a_drained_pause_stands() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(freezer) = require::cgroup(require::Freezer::V1) else { return };
    let Some(group) = Group::v1("direct") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let file: PathBuf = mount.path().join("file");
    fs::write(&file, vec![0; BLOCKS * BLOCK]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    // two seconds for what is submitted at once
    let throttle = Throttle::new(&freezer, &mount, 8 << 20);
    let script = format!("echo $$ >{}/cgroup.procs; {SUBMITS}", throttle.group.0.display());
    let _writer = Member::start(&group, &script, &file);
    let submitted = mount.path().join("file.submitted");
    wait_for("the writes to be submitted", || fs::read(&submitted).is_ok_and(|text| !text.is_empty()));
    assert_eq!(fs::read_to_string(&submitted).unwrap(), BLOCKS.to_string());
    let before = landed(&file);
    assert!(before < BLOCKS, "all have landed before the pause");
    let stop = Stop { drain: vec![mount.path()], ..pause(&group) };
    let held = desk.stop(&stop).await;
    assert_eq!(landed(&file), BLOCKS, "writes are in flight when everything stands still; {before} had landed before");
    assert!(held.release().await.whole);
}
