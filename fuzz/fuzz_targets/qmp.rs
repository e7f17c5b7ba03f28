//! A monitor and a guest agent that say whatever on their sockets, and then close.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::qemu::agent::GuestAgent;
use rblocksync::qemu::qmp::Qmp;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(1);

/// A socket that answers to the one client it has with `input`.
fn serve(input: &[u8], client: impl FnOnce(&Path)) {
    static SOCKET: OnceLock<(tempfile::TempDir, UnixListener)> = OnceLock::new();
    let (dir, listener) = SOCKET.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("socket")).expect("a socket");
        (dir, listener)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.write_all(input);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        client(&dir.path().join("socket"));
    });
}

fuzz_target!(|input: &[u8]| {
    let Some((first, input)) = input.split_first() else {
        return;
    };
    if first & 1 == 0 {
        serve(input, |path| {
            if let Ok(mut qmp) = Qmp::connect(path, TIMEOUT) {
                let _ = qmp.status(TIMEOUT);
                let _ = qmp.stop(TIMEOUT);
                assert!(qmp.take_events().len() <= input.len());
            }
        });
    } else {
        // The number that the agent must repeat depends on our process.
        let id = u64::from(std::process::id()) << 16;
        let text = String::from_utf8_lossy(input).replace("@0", &id.to_string());
        // 0xff marks an answer; 0x01, which JSON cannot hold either, stands for it here.
        let bytes: Vec<u8> = text
            .bytes()
            .map(|b| if b == 1 { 0xff } else { b })
            .collect();
        serve(&bytes, |path| {
            if let Ok(mut agent) = GuestAgent::connect(path, TIMEOUT) {
                let _ = agent.freeze_status();
                let _ = agent.freeze(TIMEOUT);
                let _ = agent.thaw(TIMEOUT);
            }
        });
    }
});
